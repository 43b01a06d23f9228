//! What the client says of an error, in words for people.

use fred::error::{Error, ErrorKind};

use super::UrlMistake;

/// As the client shows it, but for errors of the system: of these it has only what Rust writes for programmers, such as
/// `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
pub(in crate::store) fn in_words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::IO => format!("IO Error: {}", of_system(error.details())),
        _ => error.to_string(),
    }
}

/// The message that is in it, or what stands at its place; all of it where it has another form.
fn of_system(details: &str) -> &str {
    let behind = |mark: &str, end: &str| {
        let (_, rest) = details.split_once(mark)?;
        rest.strip_suffix(end)
    };
    let os = || behind(", message: \"", "\" }");
    let custom = || behind(", error: ", " }").map(|text| text.trim_matches('"'));
    match details {
        it if it.starts_with("Os {") => os().unwrap_or(it),
        it if it.starts_with("Custom {") => custom().unwrap_or(it),
        it => it,
    }
}

/// Of an error that came of a URL.
pub(super) fn mistake(error: &Error) -> UrlMistake {
    if *error.kind() != ErrorKind::Tls {
        return UrlMistake::Form(error.details().to_owned());
    }
    // The client has only one of them, and that in Rust's words too.
    let unreadable = fred::rustls_native_certs::load_native_certs().errors;
    let why = unreadable.first().map(ToString::to_string);
    UrlMistake::Authorities(why.unwrap_or_else(|| error.details().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn words(error: io::Error) -> String {
        in_words(&Error::from(error))
    }

    #[test]
    fn errors_of_the_system_are_told_by_their_message() {
        assert_eq!(
            words(io::Error::from_raw_os_error(111)),
            "IO Error: Connection refused"
        );
        assert_eq!(
            words(io::Error::other("Name or service not known")),
            "IO Error: Name or service not known"
        );
        assert_eq!(
            words(io::ErrorKind::UnexpectedEof.into()),
            "IO Error: Kind(UnexpectedEof)"
        );
    }

    #[test]
    fn what_redis_says_is_told_as_it_is() {
        let error = Error::new(ErrorKind::Auth, "WRONGPASS Os { message: \"a\" }");
        assert_eq!(
            in_words(&error),
            "Authentication Error: WRONGPASS Os { message: \"a\" }"
        );
    }
}
