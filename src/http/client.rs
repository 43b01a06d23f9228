//! Who calls: the address that failed logins are counted by.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest, web};
use ipnet::IpNet;

use crate::flows::Flows;

/// Each proxy appends the address that it was called from (the header has no standard; RFC 7239, section 7.4
/// tells its form).
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the client. Behind proxies that we trust it is what the last of them says, else the peer's.
pub struct ClientAddress(pub IpAddr);

impl FromRequest for ClientAddress {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // A connection has a peer; only a test's request has none.
        let peer = request
            .peer_addr()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let trusted = request
            .app_data::<web::Data<Flows>>()
            .map_or(&[][..], |flows| &flows.settings.trusted_proxies);
        ready(Ok(Self(client(peer, request.headers(), trusted))))
    }
}

/// The nearest address that is not a trusted proxy. Read from the right, since whatever stands left of what our
/// own proxies wrote is the caller's to invent. An entry that is no address ends the reading, as do entries that
/// are all trusted: the last good one counts.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut nearest = peer.to_canonical();
    let values: Vec<_> = headers.get_all(X_FORWARDED_FOR).collect();
    // A header given several times is one list (RFC 9110, section 5.2).
    let entries = values
        .iter()
        .rev()
        .flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    for entry in entries {
        if !is_trusted(&nearest) {
            break;
        }
        match parse(entry.trim()) {
            Some(address) => nearest = address,
            None => break,
        }
    }
    nearest
}

/// An address, with or without a port; an IPv4 address in IPv6 form is itself.
fn parse(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || entry.parse::<SocketAddr>().ok().map(|it| it.ip());
    let address: IpAddr = entry.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            let value = HeaderValue::from_str(value).expect("a value");
            headers.append(HeaderName::from_static(X_FORWARDED_FOR), value);
        }
        let trusted: Vec<_> = trusted
            .iter()
            .map(|it| it.parse().expect("a network"))
            .collect();
        client(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    const OURS: &[&str] = &["10.0.0.0/8", "2001:db8::/32"];

    #[test]
    fn a_stranger_is_believed_nothing() {
        assert_eq!(seen("192.0.2.1", &["198.51.100.7"], OURS), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.7"], &[]), "10.0.0.1");
    }

    #[test]
    fn a_trusted_proxy_tells_the_client() {
        for (forwarded, expected) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            (&["198.51.100.7, 10.0.0.2 , 10.0.0.3"], "198.51.100.7"),
            (&["203.0.113.9", "198.51.100.7,10.0.0.2"], "198.51.100.7"),
            (&["198.51.100.7", "10.0.0.2"], "198.51.100.7"),
            (&["198.51.100.7:5555"], "198.51.100.7"),
            (&["[2001:db9::1]:5555"], "2001:db9::1"),
            (&["[2001:db9::1]"], "2001:db9::1"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
        ] {
            assert_eq!(seen("10.0.0.1", forwarded, OURS), expected, "{forwarded:?}");
        }
        assert_eq!(seen("2001:db8::1", &["198.51.100.7"], OURS), "198.51.100.7");
        assert_eq!(
            seen("::ffff:10.0.0.1", &["198.51.100.7"], OURS),
            "198.51.100.7"
        );
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_good_one() {
        for (forwarded, expected) in [
            (&[][..], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["unknown"], "10.0.0.1"),
            (&["198.51.100.7, unknown"], "10.0.0.1"),
            (&["198.51.100.7, , 10.0.0.2"], "10.0.0.2"),
            (&["unknown, 10.0.0.2"], "10.0.0.2"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["198.51.100.7;10.0.0.2"], "10.0.0.1"),
        ] {
            assert_eq!(seen("10.0.0.1", forwarded, OURS), expected, "{forwarded:?}");
        }
    }
}
