//! `set_user`: add, change or delete users, all that are named or none. See `lua/set_user.lua`.

use fred::types::Value;

use super::Inner;
use crate::auth::user::UserName;
use crate::token::StoreError;

/// What is done with each of the users named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Who is not there.
    Add,
    /// Who is there.
    Set,
    /// Whether there or not.
    Put,
    /// Who is there.
    Delete,
    /// Whose hash still is the one read: it is replaced, and the epoch stays.
    Rehash,
}

pub(super) struct Item<'a> {
    pub name: &'a UserName,
    pub hash: &'a str,
    /// The hash that was read, for `Rehash`.
    pub read: &'a str,
}

/// Does it, or names the users because of whom nothing was done.
pub(super) async fn set_user(
    inner: &Inner,
    verb: Verb,
    items: &[Item<'_>],
) -> Result<Result<(), Vec<String>>, StoreError> {
    let verb = match verb {
        Verb::Add => "add",
        Verb::Set => "set",
        Verb::Put => "put",
        Verb::Delete => "delete",
        Verb::Rehash => "rehash",
    };
    let mut args = vec![verb.into()];
    for item in items {
        args.extend([item.name.as_str(), item.hash, item.read].map(Into::into));
    }
    let keys = vec![inner.keys.users.clone()];
    let answer = inner.call(&inner.scripts.set_user, keys, args).await?;
    let mut reply = answer.only()?;
    match reply.tag.as_str() {
        "set" => Ok(Ok(())),
        "refused" => {
            let mut names = vec![reply.text()?];
            names.extend(reply.rest().filter_map(Value::into_string));
            Ok(Err(names))
        }
        _ => reply.unknown(),
    }
}
