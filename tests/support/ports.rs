//! Ports for servers, such that no two tests of any process ever want the same one.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below where Linux takes ports for outgoing connections from (32768), and so is each plus `BUS_OFFSET`.
const FIRST: u16 = 10_000;
const COUNT: u16 = 6_000;
/// The port on which the nodes of a cluster talk to each other is the server's plus this, by Redis's rule.
const BUS_OFFSET: u16 = 10_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that is ours for as long as this lives, whether or not a server listens there now.
pub struct Port {
    pub number: u16,
    /// The claim: Redis uses TCP alone, so the UDP port of that number is free to say that it is taken, to
    /// every process on this machine, until we end in whatever way.
    _claim: UdpSocket,
}

impl Port {
    pub fn claim() -> Self {
        // Processes start at different places, so that they seldom try what another has.
        #[allow(clippy::cast_possible_truncation)]
        let start = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + (start + step) % COUNT;
            let Ok(claim) = UdpSocket::bind(("127.0.0.1", number)) else {
                continue;
            };
            if is_free(number) && is_free(number + BUS_OFFSET) {
                return Self {
                    number,
                    _claim: claim,
                };
            }
        }
        panic!("none of {COUNT} ports is free");
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A port on which nobody listens at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
