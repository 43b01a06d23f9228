//! `REDIS_URL`, a value that may hold a password.

use std::fmt;

use super::Config;
use crate::store::{UrlMistake, check_url};

/// Schemes that tokend accepts. The `ss` ones are TLS.
const SCHEMES: [&str; 7] = [
    "redis://",
    "rediss://",
    "redis+unix://",
    "redis-sentinel://",
    "rediss-sentinel://",
    "redis-cluster://",
    "rediss-cluster://",
];

/// What may stand behind the `?` where several servers are named.
const SEVERAL: [&str; 4] = [
    "node",
    "sentinelServiceName",
    "sentinelUsername",
    "sentinelPassword",
];

/// Where Redis is. Printing it never shows user, password or query.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// # Errors
    /// When it is not one of the accepted forms. The message never repeats the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(scheme) = SCHEMES.iter().find(|scheme| text.starts_with(**scheme)) else {
            let begins = text.split_once("://").map(|(scheme, _)| scheme);
            // What stands before the slashes is shown only if it can be nothing but a scheme.
            let begins = begins.filter(|s| {
                s.len() <= 20
                    && s.bytes()
                        .all(|b| b.is_ascii_alphabetic() || b"+-.".contains(&b))
            });
            let given = begins.map_or_else(
                || "has no scheme and".to_owned(),
                |s| format!("begins with {s}:// but"),
            );
            return Err(format!(
                "{given} must be redis://host:6379, rediss://host:6379, redis+unix:///path/to/socket, \
                 redis-sentinel://host:26379?sentinelServiceName=NAME&node=host2:26379 or \
                 redis-cluster://host:6379?node=host2:6379 (or empty, for an embedded Redis)"
            ));
        };
        let rest = &text[scheme.len()..];
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("must not contain spaces (in a password, write them as %20)".to_owned());
        }
        let url = Self(text.to_owned());
        let place = url.place();
        if *scheme == "redis+unix://" {
            if place
                .split_once('/')
                .is_none_or(|(_, path)| path.is_empty())
            {
                return Err(
                    "must name the socket's absolute path: redis+unix:///path/to/socket".to_owned(),
                );
            }
        } else if place.is_empty() || place.starts_with([':', '/']) {
            return Err(format!("must name a host: {scheme}host:6379"));
        }
        if scheme.contains("-sentinel") || scheme.contains("-cluster") {
            url.check_query()?;
        }
        check_url(text).map_err(|mistake| {
            let why = match mistake {
                UrlMistake::Form(why) => why,
                UrlMistake::Authorities(why) => return format!(
                    "is a URL with TLS, and the authorities to judge certificates by can't be read (the system's, or those \
                     in SSL_CERT_FILE and SSL_CERT_DIR): {why}"
                ),
            };
            let rest = match *scheme {
                "redis+unix://" => "user:password@localhost/path/to/socket",
                scheme if scheme.contains("-sentinel") => {
                    "user:password@host:26379/0?sentinelServiceName=NAME&node=host2:26379"
                }
                scheme if scheme.contains("-cluster") => {
                    "user:password@host:6379?node=host2:6379"
                }
                _ => "user:password@host:6379/0",
            };
            format!(
                "must be a URL, which this is not ({why}): {scheme}{rest}; in the password % is %25, @ is %40, \
                 / is %2F, # is %23, : is %3A"
            )
        })?;
        Ok(url)
    }

    /// The client passes over what it does not know, and with it a misspelt node.
    fn check_query(&self) -> Result<(), String> {
        let behind = self.0.rsplit_once('?').map_or("", |(_, query)| query);
        let mut names = behind.split('&').filter(|part| !part.is_empty());
        let known = |part: &str| {
            let name = part.split_once('=').map(|(name, _)| name);
            name.is_some_and(|name| SEVERAL.contains(&name))
        };
        if !names.all(known) {
            return Err(format!(
                "must have nothing behind the ? but {}, each with a value",
                SEVERAL.join(", ")
            ));
        }
        let mut nodes = behind
            .split('&')
            .filter_map(|part| part.strip_prefix("node="));
        let named = |node: &str| {
            let parts = node.rsplit_once(':');
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if nodes.all(named) {
            Ok(())
        } else {
            Err("must name each further node as node=host:port".to_owned())
        }
    }

    /// The whole URL, password included: for the connection alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Host, port and path. Cuts generously: up to the last `@` anywhere, so that a password with
    /// characters that should have been escaped stays hidden too.
    fn place(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        rest.split(['?', '#']).next().unwrap_or("")
    }
}

impl Config {
    /// Which data is ours, for people: `REDIS_URL` without its secrets, or that it is embedded and where.
    #[must_use]
    pub fn redis(&self) -> String {
        match &self.redis_url {
            Some(url) => url.to_string(),
            None => format!("embedded, data in {}", self.data_dir.display()),
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once("://").map_or("", |(scheme, _)| scheme);
        write!(f, "{scheme}://{}", self.place())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_the_accepted_schemes_are_taken_and_printed_without_their_secrets() {
        for (given, shown) in [
            ("redis://localhost:6379", "redis://localhost:6379"),
            ("redis://:hush@db:6379/2", "redis://db:6379/2"),
            (
                "rediss://user:hu%2Fsh%40@db.example:6380?password=hush",
                "rediss://db.example:6380",
            ),
            (
                "redis+unix:///run/redis.sock",
                "redis+unix:///run/redis.sock",
            ),
            (
                "redis+unix://u:hush@x/run/redis.sock",
                "redis+unix://x/run/redis.sock",
            ),
            (
                "redis-sentinel://u:hush@s1:26379/2?sentinelServiceName=main&sentinelPassword=hush&node=s2:26379",
                "redis-sentinel://s1:26379/2",
            ),
            (
                "rediss-cluster://u:hush@c1:7000?node=c2:7000&node=c3:7000",
                "rediss-cluster://c1:7000",
            ),
            ("redis-cluster://c1:7000", "redis-cluster://c1:7000"),
        ] {
            let url = RedisUrl::parse(given).expect(given);
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("hush"));
            assert_eq!(url.expose(), given);
        }
    }

    #[test]
    fn other_urls_are_refused_without_being_repeated() {
        for given in [
            "localhost:6379",
            "http://hush@db",
            "hush",
            "redis:/hush",
            "redis://",
            "redis://:hush@",
            "redis://:hush@:6379",
            "redis+unix://hush",
            "redis://:hush hush@db",
            "hush-9://db",
            "redis://user:hush/s@h@db:6379",
            "redis://:hush#s@db:6379",
            "redis://db:6379/hush",
            "redis://db:99999",
            "redis-sentinel://db:26379",
            "redis-sentinel://db:26379?servicename=hush",
            "redis-cluster://db:7000?nodes=hush:7001",
            "redis-cluster://db:7000?node=hush",
            "redis-cluster://db:7000?node",
        ] {
            let why = RedisUrl::parse(given).expect_err(given);
            assert!(why.contains("must"), "{why}");
            assert!(!why.contains("hush"), "{why}");
        }
    }
}
