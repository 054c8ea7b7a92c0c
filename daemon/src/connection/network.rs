//! Notices that the machine has got an address or a route: the moment to try to
//! connect again, if the network stood in the way. The kernel is listened to only
//! while there is no connection. Source: rtnetlink(7).

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The multicast groups in which the kernel tells of addresses and routes:
/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and
/// `RTMGRP_IPV6_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// The message type of a new address. Source: `linux/rtnetlink.h`.
const RTM_NEWADDR: u16 = 20;
/// The message type of a new route. Source: `linux/rtnetlink.h`.
const RTM_NEWROUTE: u16 = 24;
/// The bytes of `nlmsg_type` in a message's head. Source: netlink(7).
const TYPE: std::ops::Range<usize> = 4..6;

/// Listens from when it is made until it is dropped.
pub struct Watch(io::Result<AsyncFd<OwnedFd>>);

impl Watch {
    /// Begins to listen.
    pub fn open() -> Self {
        Watch(listen())
    }

    /// Ready when the machine has got an address or a route since [`Watch::open`].
    pub async fn changed(self) {
        let heard = match self.0 {
            Ok(socket) => hear(&socket).await,
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            tracing::debug!("a network that comes back is not noticed: {error}");
            std::future::pending::<()>().await;
        }
    }
}

fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // No protocol is protocol 0, which in this family is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    #[expect(deprecated, reason = "what its unsafe successor wants promised, OwnedFd promises")]
    AsyncFd::with_interest(socket, Interest::READABLE)
}

async fn hear(socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = socket.readable().await?;
        // The kernel sends each of these messages in a datagram of its own, of which
        // the head is enough.
        let mut head = [0u8; 16];
        match recv(socket, &mut head, RecvFlags::empty()) {
            Ok(_) => {
                let kind = head.get(TYPE).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
                if matches!(kind, Some(RTM_NEWADDR | RTM_NEWROUTE)) {
                    return Ok(());
                }
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            // More messages came than the socket holds, so that something has changed.
            Err(Errno::NOBUFS) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
