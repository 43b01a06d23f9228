//! The listener: how it is opened, and how it is closed so that nobody is cut off.
//!
//! Closing a listening socket resets the connections that the kernel has taken and nobody has accepted yet, and a
//! proxy that has sent a request on one of them can't know whether it ran. A proxy asks each replica until it is
//! refused (open-source nginx asks no `/readyz`), so this happens to somebody in every restart under load. So the door
//! is shut first: who asks for a connection is refused from then on and goes elsewhere, who has one is answered, and only
//! then the socket is closed.

use std::net::TcpListener;
use std::time::Duration;

/// Shortest time from shutting the door to closing the listener. A connection that was half made then is made and
/// accepted by its end: round trips between machines of one network take a millisecond, the rest is for a busy machine.
pub const QUIET_MIN: Duration = Duration::from_millis(250);
/// Longest time after it that open connections are waited for. Each ends with its next answer; who has one and asks
/// nothing has nothing to lose.
pub const QUIET_MAX: Duration = Duration::from_secs(1);

/// Binds before anything else is started.
///
/// # Errors
/// A sentence with the variables that choose the address.
pub fn bind(host: &str, port: u16) -> Result<TcpListener, String> {
    TcpListener::bind((host, port)).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; choose another PORT, or stop what listens there",
            std::io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
            _ => "",
        };
        format!("can't listen on HOST {host}, PORT {port}: {error}{hint}")
    })
}

/// The same socket once more, to shut it while the HTTP server has it.
pub struct Door(Option<TcpListener>);

impl Door {
    #[must_use]
    pub fn of(listener: &TcpListener) -> Self {
        Self(listener.try_clone().ok())
    }

    /// Lets nobody in any more; who is inside, or has a foot in the door, stays. Where the system can't, it is as if there
    /// were no door.
    pub fn shut(self) {
        if let Some(listener) = self.0
            && let Err(error) = turn_away(&listener)
        {
            tracing::warn!(
                "stopping: the listener closes with all who are in line, for it can't turn others away first: {error}"
            );
        }
    }
}

/// Binds the listening socket to a network interface that does not exist. The kernel looks for a listener of the
/// interface that a SYN came by, finds none, and refuses; a connection that is made or half made has its socket already.
/// Since Linux 5.7 that needs no privilege. A socket filter would need `CAP_NET_ADMIN` on newer kernels.
#[cfg(target_os = "linux")]
fn turn_away(listener: &TcpListener) -> std::io::Result<()> {
    /// The kernel counts them up from 1.
    const NO_INTERFACE: u32 = i32::MAX.cast_unsigned();
    let nowhere = std::num::NonZeroU32::new(NO_INTERFACE);
    // For IPv6 too: on Linux it is an option of the socket, not of the protocol.
    socket2::SockRef::from(listener).bind_device_by_index_v4(nowhere)
}

#[cfg(not(target_os = "linux"))]
fn turn_away(_listener: &TcpListener) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_taken_port_is_told_with_its_variables() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let why = bind("127.0.0.1", port).expect_err("it is taken");
        assert!(
            why.contains(&format!("PORT {port}")) && why.contains("stop what listens"),
            "{why}"
        );
    }

    /// Of this thread: tests may run as root, and the image does not.
    #[cfg(target_os = "linux")]
    fn give_up_all_rights() {
        use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

        let none = CapabilitySet::empty();
        let sets = CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        set_capabilities(None, sets).expect("fewer rights are always granted");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn behind_a_shut_door_nobody_comes_in_and_who_is_inside_stays() {
        for host in ["127.0.0.1", "::1"] {
            let listener = match bind(host, 0) {
                Err(_) if host == "::1" => continue, // a machine without IPv6
                bound => bound.expect("a free port"),
            };
            let address = listener.local_addr().expect("bound");
            let mut accepted = TcpStream::connect(address).expect("it listens");
            let (mut inside, _) = listener.accept().expect("a connection");
            let mut queued = TcpStream::connect(address).expect("it listens");
            let door = Door::of(&listener);
            let shut = std::thread::spawn(move || {
                give_up_all_rights();
                door.shut();
            });
            shut.join().expect("it is shut");
            let refused = TcpStream::connect(address).expect_err("nobody comes in");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            let (mut late, _) = listener.accept().expect("who was in line is let in");
            for (caller, server) in [(&mut accepted, &mut inside), (&mut queued, &mut late)] {
                caller.write_all(b"?").expect("a connection");
                let mut byte = [0];
                server.read_exact(&mut byte).expect("a byte");
                server.write_all(b"!").expect("a connection");
                caller.read_exact(&mut byte).expect("a byte");
                assert_eq!(&byte, b"!");
            }
            drop(listener);
            let refused = TcpStream::connect(address).expect_err("it is closed");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    }
}
