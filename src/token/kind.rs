//! The kinds of bearer tokens that this service issues, and what settings and requests call them.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Invalid;

/// What a bearer token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Shows who is logged in, to any service.
    Access,
    /// Gets the client of a session its next access token.
    Refresh,
    /// Is exchanged for its successor with each use.
    OneTime,
    /// Stands in a link that is sent by mail.
    Temporary,
    /// Is understood by any service, for a day.
    Unified,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Access,
        Self::Refresh,
        Self::OneTime,
        Self::Temporary,
        Self::Unified,
    ];

    /// Its name in `INTROSPECT_KINDS`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
            Self::OneTime => "one-time",
            Self::Temporary => "temporary",
            Self::Unified => "unified",
        }
    }

    /// Its `token_type_hint`: the first two are those of RFC 7009, section 2.1.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Access => "access_token",
            Self::Refresh => "refresh_token",
            Self::OneTime => "one_time_token",
            Self::Temporary => "temporary_token",
            Self::Unified => "unified_token",
        }
    }

    /// The kind that a `token_type_hint` names. `None`: a hint of another service.
    #[must_use]
    pub fn of_hint(hint: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.hint() == hint)
    }

    /// The kinds of a list such as `access,unified`.
    ///
    /// # Errors
    /// When a name is unknown.
    pub fn parse_list(text: &str) -> Result<BTreeSet<Self>, Invalid> {
        let parse = |name: &str| Self::ALL.into_iter().find(|it| it.name() == name.trim());
        let kinds: Option<_> = text.split(',').map(parse).collect();
        kinds.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Invalid(format!(
                "must be one or more of {names}, separated by commas"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_kinds_and_nothing_else() {
        let two = BTreeSet::from([Kind::Access, Kind::OneTime]);
        assert_eq!(Kind::parse_list("one-time, access"), Ok(two));
        for bad in ["", "access,", "all", "Access", "one_time", "access_token"] {
            let why = Kind::parse_list(bad).expect_err(bad);
            assert!(why.0.contains("access, refresh, one-time"), "{why}");
        }
    }

    #[test]
    fn a_hint_names_one_kind_or_none() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_hint(kind.hint()), Some(kind));
        }
        for other in ["", "access", "pkce", "ACCESS_TOKEN"] {
            assert_eq!(Kind::of_hint(other), None, "{other}");
        }
    }
}
