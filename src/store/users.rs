//! Users, and the count of failed logins. A user is one field of one HASH, read directly and written by a
//! script alone; the pools know nothing of them.

use std::collections::HashMap;

use fred::interfaces::HashesInterface;
use serde::Deserialize;

use super::Store;
use super::attempt::{self, Count, attempt};
use super::set_user::{Item, Verb, set_user};
use crate::auth::attempts::{Admission, LoginAttempt};
use crate::auth::user::{User, UserName};
use crate::token::StoreError;

/// Microseconds of an epoch in a millisecond.
const EPOCHS_PER_MS: u64 = 1_000;

/// A user as a list shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserListed {
    pub name: UserName,
    /// When the password was set.
    pub changed_at_ms: u64,
}

/// A field's value. A newer release may have written more than this one knows.
#[derive(Deserialize)]
struct Stored {
    epoch: u64,
    password_hash: String,
}

impl Stored {
    fn parse(text: &str) -> Result<Self, StoreError> {
        let bad = |_| StoreError::Protocol("a user of another form".to_owned());
        serde_json::from_str(text).map_err(bad)
    }
}

impl Store {
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn find_user(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        self.find_spelling(std::slice::from_ref(name)).await
    }

    /// The user of the first of these names that there is: the spellings of one name.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn find_spelling(&self, names: &[UserName]) -> Result<Option<User>, StoreError> {
        if names.is_empty() {
            return Ok(None);
        }
        let inner = &self.inner;
        let steps = async {
            inner.ready().await?;
            let key = inner.keys.users.as_str();
            let fields: Vec<_> = names.iter().map(UserName::as_str).collect();
            let texts: Vec<Option<String>> = inner
                .read(key, |client| {
                    let fields = fields.clone();
                    async move { client.hmget(key, fields).await }
                })
                .await?;
            let found = names.iter().zip(texts);
            let found = found.filter_map(|(name, text)| Some((name, text?))).next();
            found
                .map(|(name, text)| {
                    let stored = Stored::parse(&text)?;
                    Ok(User {
                        name: name.clone(),
                        password_hash: stored.password_hash,
                        epoch: stored.epoch,
                    })
                })
                .transpose()
        };
        inner.within(false, Box::pin(steps)).await
    }

    /// All users, by name.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn list_users(&self) -> Result<Vec<UserListed>, StoreError> {
        let inner = &self.inner;
        let steps = async {
            inner.ready().await?;
            let key = inner.keys.users.as_str();
            let texts: HashMap<String, String> = inner
                .read(key, |client| async move { client.hgetall(key).await })
                .await?;
            let mut users = Vec::with_capacity(texts.len());
            for (name, text) in texts {
                // The nameless field holds the last epoch.
                if let Ok(name) = UserName::parse(&name) {
                    let changed_at_ms = Stored::parse(&text)?.epoch / EPOCHS_PER_MS;
                    users.push(UserListed {
                        name,
                        changed_at_ms,
                    });
                }
            }
            users.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(users)
        };
        inner.within(false, Box::pin(steps)).await
    }

    /// `false`: there is one of that name.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn add_user(&self, name: &UserName, hash: &str) -> Result<bool, StoreError> {
        self.set_one(Verb::Add, name, hash, "").await
    }

    /// Sets a password: the sessions that began under the old one are over. `false`: no such user.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn set_password(&self, name: &UserName, hash: &str) -> Result<bool, StoreError> {
        self.set_one(Verb::Set, name, hash, "").await
    }

    /// `false`: no such user.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn delete_user(&self, name: &UserName) -> Result<bool, StoreError> {
        self.set_one(Verb::Delete, name, "", "").await
    }

    /// Puts another hash of the same password in the place of the one read; the epoch stays. `false`: somebody
    /// changed the user since.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn rehash_user(&self, user: &User, hash: &str) -> Result<bool, StoreError> {
        self.set_one(Verb::Rehash, &user.name, hash, &user.password_hash)
            .await
    }

    /// Adds all of these users, names and hashes, or none where some are there already and may not be replaced:
    /// then it names those.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn import_users(
        &self,
        users: &[(UserName, String)],
        replace: bool,
    ) -> Result<Vec<String>, StoreError> {
        let items: Vec<_> = users
            .iter()
            .map(|(name, hash)| Item {
                name,
                hash,
                read: "",
            })
            .collect();
        let verb = if replace { Verb::Put } else { Verb::Add };
        Ok(self.set(verb, &items).await?.err().unwrap_or_default())
    }

    async fn set_one(
        &self,
        verb: Verb,
        name: &UserName,
        hash: &str,
        read: &str,
    ) -> Result<bool, StoreError> {
        let items = [Item { name, hash, read }];
        Ok(self.set(verb, &items).await?.is_ok())
    }

    async fn set(
        &self,
        verb: Verb,
        items: &[Item<'_>],
    ) -> Result<Result<(), Vec<String>>, StoreError> {
        let inner = &self.inner;
        let steps = async {
            inner.ready().await?;
            set_user(inner, verb, items).await
        };
        inner.within(true, steps).await
    }

    /// Whether another login may be tried: asked before the password is verified.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn login_attempts(&self, login: &LoginAttempt) -> Result<Admission, StoreError> {
        self.count_both(attempt::Verb::Look, login).await
    }

    /// Counts a failed login. Refused: other logins failed meanwhile, and this one is to be answered with 429, so
    /// that it does not learn that its password was wrong.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn login_failed(&self, login: &LoginAttempt) -> Result<Admission, StoreError> {
        self.count_both(attempt::Verb::Fail, login).await
    }

    /// Forgets the failures of this user at this address, and remembers the address. Refused: as a failed login.
    /// `known`: what [`Store::login_attempts`] said.
    ///
    /// # Errors
    /// When Redis could not answer; see [`StoreError`].
    pub async fn login_passed(
        &self,
        login: &LoginAttempt,
        known: bool,
    ) -> Result<Admission, StoreError> {
        // Asked first: once the address is known, its limit does not apply any more.
        if !known {
            let look = attempt::Verb::Look;
            let address = self.count(look, Count::Address, login).await?;
            if address.refused.is_some() {
                return Ok(address);
            }
        }
        self.count(attempt::Verb::Pass, Count::User, login).await
    }

    async fn count_both(
        &self,
        verb: attempt::Verb,
        login: &LoginAttempt,
    ) -> Result<Admission, StoreError> {
        let user = self.count(verb, Count::User, login).await?;
        if user.known || user.refused.is_some() {
            return Ok(user);
        }
        self.count(verb, Count::Address, login).await
    }

    async fn count(
        &self,
        verb: attempt::Verb,
        count: Count,
        login: &LoginAttempt,
    ) -> Result<Admission, StoreError> {
        let inner = &self.inner;
        let steps = async {
            inner.ready().await?;
            attempt(inner, verb, count, login).await
        };
        inner.within(true, steps).await
    }
}
