//! A session: one login of one user. The store keeps it as a family of refresh tokens; this is how the family
//! says whose it is, and how an access token says which family it belongs to.

use std::fmt;

use super::user::{User, UserName};
use crate::token::rotating::Rotating;
use crate::token::{Holder, TokenValue};

/// Who logged in, and under which of their passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub epoch: u64,
    pub name: UserName,
}

impl Login {
    #[must_use]
    pub fn of(user: &User) -> Self {
        Self {
            epoch: user.epoch,
            name: user.name.clone(),
        }
    }

    /// What the family's record says: the epoch, a space, the name as it is.
    ///
    /// # Panics
    /// Never: a number and a user's name fit into a label.
    #[must_use]
    pub fn label(&self) -> Holder {
        let text = format!("{} {}", self.epoch, self.name);
        Holder::parse_stored(&text).expect("a name is short and printable")
    }

    /// `None`: no label of ours.
    #[must_use]
    pub fn parse(label: &Holder) -> Option<Self> {
        let (epoch, name) = label.as_str().split_once(' ')?;
        Some(Self {
            epoch: epoch.parse().ok()?,
            name: UserName::parse(name).ok()?,
        })
    }

    /// Whether that is still the user, with the password of then. One deleted and made again is another.
    #[must_use]
    pub fn is_of(&self, user: Option<&User>) -> bool {
        user.is_some_and(|user| user.epoch == self.epoch && user.name == self.name)
    }
}

/// Which session: `sid` of its access tokens, `partition.family`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionId {
    pub partition: usize,
    pub family: TokenValue,
}

impl From<&Rotating> for SessionId {
    fn from(token: &Rotating) -> Self {
        Self {
            partition: token.partition,
            family: token.family.clone(),
        }
    }
}

impl SessionId {
    /// `None`: none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (partition, family) = text.split_once('.')?;
        let id = Self {
            partition: partition.parse().ok()?,
            family: TokenValue::parse(family).ok()?,
        };
        // `+3` and `03` are numbers too, but not as we write them: a session has one name.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.partition, self.family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, epoch: u64) -> User {
        User {
            name: UserName::parse(name).expect("a name"),
            password_hash: String::new(),
            epoch,
        }
    }

    #[test]
    fn a_label_tells_who_logged_in() {
        for (name, epoch) in [
            ("ann", 0),
            ("Jörg van der Berg", u64::MAX),
            (&"x".repeat(128), 7),
        ] {
            let login = Login::of(&user(name, epoch));
            assert_eq!(Login::parse(&login.label()), Some(login));
        }
        for bad in ["ann", "x ann", "-1 ann", "7 ", " ann", "7  ann"] {
            let label = Holder::parse_stored(bad).expect("a label");
            assert_eq!(Login::parse(&label), None, "{bad}");
        }
    }

    #[test]
    fn a_login_is_of_the_user_with_that_password_alone() {
        let login = Login::of(&user("ann", 7));
        assert!(login.is_of(Some(&user("ann", 7))));
        assert!(!login.is_of(Some(&user("ann", 8))));
        assert!(!login.is_of(Some(&user("bob", 7))));
        assert!(!login.is_of(None));
    }

    #[test]
    fn a_session_has_a_name() {
        let session = SessionId::parse("12.a-b_c").expect("a session");
        assert_eq!((session.partition, session.family.as_str()), (12, "a-b_c"));
        assert_eq!(session.to_string(), "12.a-b_c");
        for bad in ["", "12", "12.", ".a", "x.a", "-1.a"] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
    }
}
