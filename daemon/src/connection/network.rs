//! That the machine has got an address or a route: the moment to try again
//! what the network stood in the way of. The kernel is listened to only while
//! there is no connection. Source: rtnetlink(7).

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`,
/// `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
/// Where the type stands in a message's head.
const TYPE: std::ops::Range<usize> = 4..6;

/// Listens from when it is made until it is dropped.
pub struct Watch(io::Result<AsyncFd<OwnedFd>>);

impl Watch {
    /// Begins to listen.
    pub fn open() -> Self {
        Watch(listen())
    }

    /// Ready when the machine has got an address or a route since.
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
    // Its first protocol, NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    #[expect(deprecated, reason = "what its unsafe successor wants promised, OwnedFd promises")]
    AsyncFd::with_interest(socket, Interest::READABLE)
}

async fn hear(socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = socket.readable().await?;
        // The kernel sends these one to a datagram; its head is enough.
        let mut head = [0u8; 16];
        match recv(socket, &mut head, RecvFlags::empty()) {
            Ok(_) => {
                let kind = head.get(TYPE).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
                if matches!(kind, Some(RTM_NEWADDR | RTM_NEWROUTE)) {
                    return Ok(());
                }
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            // More came than fitted in: then something has changed.
            Err(Errno::NOBUFS) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
