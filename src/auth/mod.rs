//! Who logs in, and what they get: users, their passwords, and signed access tokens. Without I/O but for key files.
//!
//! Reading order: [`user`] (who), [`precis`] (one form of what is typed), [`password`] (how they prove it), [`jwt`]
//! (what is signed for them). The users themselves lie in the store, with the count of failed logins.

pub mod jwt;
pub mod password;
pub mod precis;
pub mod session;
pub mod user;
