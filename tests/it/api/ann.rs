//! Who logs in, in tests: a user, what they ask for, and the tokens that they are given.

use std::time::Duration;

use serde_json::{Value, json};
use tokend::auth::user::UserName;
use tokend::token::{Flow, PoolName};

use super::{Answer, Server};
use crate::harness::Fixture;

/// Longer than the 72 bytes that bcrypt looks at, so its hash is not replaced at the first login: hashing anew
/// takes a second without optimization.
pub const PASSWORD: &str =
    "correct horse battery staple correct horse battery staple correct horse battery staple";
/// Past the time in which a used refresh token gets its successor again.
pub const PAST_RETRY: Duration = Duration::from_millis(60_200);

pub fn name(text: &str) -> UserName {
    UserName::parse(text).expect("a name")
}

impl Fixture {
    pub async fn add_user(&self, user: &str) {
        // The cheapest hash that is taken.
        let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
        let added = self.store.add_user(&name(user), &hash).await;
        assert_eq!(added, Ok(true));
    }

    /// Lets time pass for the sessions.
    pub async fn pass_sessions(&self, by: Duration) {
        self.pass(&PoolName::of_flow(Flow::Session), by).await;
    }
}

impl Server {
    /// With the user `ann`.
    pub async fn with_ann() -> Self {
        let server = Self::start().await;
        server.fixture.add_user("ann").await;
        server
    }

    /// Another one on the same data set.
    pub async fn twin(&self) -> Self {
        Self::on(self.fixture.replica().await).await
    }

    pub async fn try_login(&self, user: &str, password: &str) -> Answer {
        let credentials = json!({"username": user, "password": password});
        self.post("/auth/login", credentials).await
    }

    /// A login of `ann` that must succeed.
    pub async fn login(&self) -> Tokens {
        Tokens::of(&self.try_login("ann", PASSWORD).await)
    }

    pub async fn try_refresh(&self, token: &str) -> Answer {
        self.post("/auth/refresh", json!({ "refresh_token": token }))
            .await
    }

    pub async fn refresh(&self, token: &str) -> Tokens {
        Tokens::of(&self.try_refresh(token).await)
    }

    pub async fn logout(&self, token: &str) {
        let answer = self.post("/auth/logout", json!({ "refresh_token": token }));
        let answer = answer.await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    }

    pub async fn validate(&self, token: &str) -> Value {
        let answer = self
            .post("/token/validate", json!({ "token": token }))
            .await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.json(200)
    }

    pub async fn is_valid(&self, access: &str) -> bool {
        let told = self.validate(access).await;
        if told["valid"] == false {
            assert_eq!(told, json!({"valid": false}));
        }
        told["valid"] == true
    }

    pub async fn revoke(&self, token: &str) -> Value {
        self.post("/token/revoke", json!({ "token": token }))
            .await
            .json(200)
    }
}

/// What a login or a refresh gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
    pub refresh_expires_in: u64,
}

impl Tokens {
    pub fn of(answer: &Answer) -> Self {
        let body = answer.json(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let members: Vec<_> = body.as_object().expect("an object").keys().collect();
        let expected = [
            "access_token",
            "expires_in",
            "refresh_expires_in",
            "refresh_token",
            "token_type",
        ];
        let mut sorted = members.clone();
        sorted.sort();
        assert_eq!(sorted, expected);
        assert_eq!(body["token_type"], "Bearer");
        assert_eq!(body["expires_in"], 900);
        let text = |member: &str| body[member].as_str().expect("text").to_owned();
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
            refresh_expires_in: body["refresh_expires_in"].as_u64().expect("seconds"),
        }
    }
}
