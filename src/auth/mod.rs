//! Who logs in, and what they get: users, their passwords, and signed access tokens. Without I/O but for key files.
//!
//! Reading order: [`user`] (who), [`precis`] (one form of what is typed), [`password`] (how they prove it), `turns`
//! (in which order), [`attempts`] (how often), [`jwt`] (what is signed for them). The users themselves are in the
//! store, with the counts of failed logins.

pub mod attempts;
pub mod jwt;
pub mod password;
pub mod precis;
pub mod session;
mod turns;
pub mod user;
