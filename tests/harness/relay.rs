//! Reaches a server by another address.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::spawn;

/// Listens on `address` and passes each connection on to `port` of this
/// machine; returns where it listens.
pub fn relay(address: &str, port: u16) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let listens = listener.local_addr().unwrap();
    spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            spawn(move || pass_on(from, to));
            spawn(move || pass_on(server, client));
        }
    });
    listens
}

pub(crate) fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    // Either side may end the connection; the other side then learns of that.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
