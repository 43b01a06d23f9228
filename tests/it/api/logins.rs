//! Logins that fail, and are counted; and hashes that are made better.

use std::time::Duration;

use fred::prelude::*;
use fred::types::Value;
use futures_util::future::join_all;
use serde_json::json;
use tokend::auth::attempts::LoginAttempt;
use tokend::token::{Flow, PoolName};

use super::ann::{PASSWORD, Tokens, name};
use super::{Answer, Server, answer, flows_with};
use crate::harness::{Fixture, eventually};

/// How long a failed login counts.
const WINDOW: Duration = Duration::from_secs(15 * 60);

impl Fixture {
    /// Moves every failed login into the past.
    async fn pass_attempts(&self, by: Duration) {
        const SHIFT: &str = "local moved = {}
            local flat = redis.call('HGETALL', KEYS[1])
            for i = 1, #flat, 2 do
              local packed = ''
              for at = 1, #flat[i + 1], 6 do
                packed = packed .. struct.pack('>I6', struct.unpack('>I6', flat[i + 1], at) - ARGV[1])
              end
              redis.call('HSET', KEYS[1], flat[i], packed)
            end
            return redis.call('RENAME', KEYS[1], KEYS[2])";
        let windows = by.as_secs() / WINDOW.as_secs();
        for key in self
            .keys(&format!("{}:1:*:attempts:*", self.config.key_prefix))
            .await
        {
            let (rest, window) = key.rsplit_once(':').expect("a window");
            let window: u64 = window.parse().expect("a number");
            let keys = vec![key.clone(), format!("{rest}:{}", window - windows)];
            let args = vec![by.as_millis().to_string()];
            let _: Value = self.redis.eval(SHIFT, keys, args).await.expect("shift");
        }
    }
}

/// Behind a proxy at this machine's own address, which is trusted.
async fn behind_a_proxy() -> Server {
    let fixture = Fixture::new().await;
    fixture.add_user("ann").await;
    fixture.add_user("bob").await;
    Server::with_flows(fixture, |_| flows_with(&[("TRUSTED_PROXIES", "127.0.0.1")])).await
}

async fn login_from(server: &Server, address: &str, user: &str, password: &str) -> Answer {
    let credentials = json!({"username": user, "password": password});
    let request = server.request(reqwest::Method::POST, "/auth/login");
    answer(
        request
            .header("x-forwarded-for", address)
            .json(&credentials),
    )
    .await
}

fn assert_rate_limited(answer: &Answer) {
    answer.problem("rate-limited", 429);
    assert_eq!(answer.header("ratelimit-limit"), Some("10"));
    assert_eq!(answer.header("ratelimit-remaining"), Some("0"));
    let wait_s = answer.retry_after_s();
    assert!(
        (WINDOW.as_secs() - 300..=WINDOW.as_secs()).contains(&wait_s),
        "{wait_s}"
    );
    assert_eq!(
        answer.header("ratelimit-reset"),
        Some(wait_s.to_string().as_str())
    );
}

#[tokio::test]
async fn ten_failures_of_one_user_from_one_address_are_enough() {
    let server = behind_a_proxy().await;
    let (here, there) = ("198.51.100.7", "198.51.100.8");
    for _ in 0..10 {
        let failed = login_from(&server, here, "ann", "wrong").await;
        failed.problem("invalid-credentials", 401);
    }
    assert_rate_limited(&login_from(&server, here, "ann", "wrong").await);
    assert_rate_limited(&login_from(&server, here, "ann", PASSWORD).await);
    // What the caller invents stands left of what the proxy writes.
    let invented = format!("{there}, {here}");
    assert_rate_limited(&login_from(&server, &invented, "ann", PASSWORD).await);
    Tokens::of(&login_from(&server, here, "bob", PASSWORD).await);
    Tokens::of(&login_from(&server, there, "ann", PASSWORD).await);
    server.fixture.pass_attempts(WINDOW).await;
    Tokens::of(&login_from(&server, here, "ann", PASSWORD).await);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_counted_like_any_other() {
    let server = Server::with_ann().await;
    // Refused before the work of a password, and so the fastest of them.
    let key = |user: &str| {
        let here = server.address.ip();
        LoginAttempt::new(user, here.into())
    };
    for user in ["nobody", "no:body"] {
        for _ in 0..10 {
            let failed = server.fixture.store.login_failed(&key(user)).await;
            assert_eq!(failed.map(|it| it.refused), Ok(None));
        }
        server
            .try_login(user, "wrong")
            .await
            .problem("rate-limited", 429);
    }
    server.login().await;
}

#[tokio::test]
async fn a_success_forgets_the_failures_before_it() {
    let server = Server::with_ann().await;
    for _ in 0..3 {
        for _ in 0..9 {
            server
                .try_login("ann", "wrong")
                .await
                .problem("invalid-credentials", 401);
        }
        server.login().await;
    }
}

#[tokio::test]
async fn guesses_at_once_are_told_no_more_than_guesses_in_a_row() {
    let server = Server::with_ann().await;
    let other = server.twin().await;
    let guesses = (0..40).map(|i| [&server, &other][i % 2].try_login("ann", "wrong"));
    let answers = join_all(guesses).await;
    let of = |status: u16| answers.iter().filter(|it| it.status == status).count();
    // A busy machine answers some with 503, which tells nothing about the password either.
    assert_eq!(of(401) + of(429) + of(503), 40);
    assert!(of(401) <= 10, "{} guesses were answered", of(401));
}

#[tokio::test]
async fn an_older_hash_is_replaced_at_the_next_login_and_the_session_stays() {
    let server = Server::start().await;
    let (ann, store) = (name("ann"), &server.fixture.store);
    let hash = bcrypt::hash("short", 4).expect("hashed");
    assert_eq!(store.add_user(&ann, &hash).await, Ok(true));
    let tokens = Tokens::of(&server.try_login("ann", "short").await);
    let stored = async || {
        let user = store.find_user(&ann).await.expect("found");
        user.expect("there").password_hash
    };
    eventually("the hash is a new one", async || {
        stored().await.starts_with("$argon2id$")
    })
    .await;
    assert!(server.is_valid(&tokens.access).await);
    server.refresh(&tokens.refresh).await;
    Tokens::of(&server.try_login("ann", "short").await);
}

#[tokio::test]
async fn an_imported_password_of_72_bytes_or_more_stays_what_it_is() {
    let server = Server::start().await;
    let (ann, store) = (name("ann"), &server.fixture.store);
    let long = "x".repeat(73);
    let hash = bcrypt::hash(&long, 4).expect("hashed");
    assert_eq!(store.add_user(&ann, &hash).await, Ok(true));
    for typed in [&long, &long[..72], &long] {
        Tokens::of(&server.try_login("ann", typed).await);
    }
    let wrong = server.try_login("ann", &long[..71]).await;
    wrong.problem("invalid-credentials", 401);
    let user = store.find_user(&ann).await.expect("found");
    assert_eq!(user.expect("there").password_hash, hash);
}

#[tokio::test]
async fn a_name_and_a_password_are_one_however_they_are_spelt() {
    let server = Server::start().await;
    let store = &server.fixture.store;
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    // Over 72 bytes: the hash is not replaced, which takes long here.
    let password = |spelling: &str| format!("{spelling} {PASSWORD}");
    let hash = |spelling: &str| bcrypt::hash(password(spelling), 4).expect("hashed");
    assert_eq!(
        store.add_user(&name(composed), &hash(composed)).await,
        Ok(true)
    );
    for user in [composed, decomposed, "\u{ff43}\u{ff41}\u{ff46}\u{e9}"] {
        for typed in [composed, decomposed] {
            let tokens = Tokens::of(&server.try_login(user, &password(typed)).await);
            let told = server.validate(&tokens.access).await;
            assert_eq!(told["claims"]["sub"], composed);
        }
    }
    for user in ["cafe", "caf\u{e9}\u{200b}", "\u{feff}caf\u{e9}"] {
        let answer = server.try_login(user, &password(composed)).await;
        answer.problem("invalid-credentials", 401);
    }
    // Of before there was one form: as it was typed then.
    assert_eq!(
        store.add_user(&name(decomposed), &hash(decomposed)).await,
        Ok(true)
    );
    let tokens = Tokens::of(&server.try_login(decomposed, &password(decomposed)).await);
    let told = server.validate(&tokens.access).await;
    assert_eq!(told["claims"]["sub"], decomposed);
    Tokens::of(&server.try_login(composed, &password(composed)).await);
    // Spellings share a count.
    for user in [composed, decomposed].repeat(5) {
        let answer = server.try_login(user, "wrong").await;
        answer.problem("invalid-credentials", 401);
    }
    for user in [composed, decomposed] {
        assert_rate_limited(&server.try_login(user, "wrong").await);
    }
}

#[tokio::test]
async fn guesses_from_many_addresses_are_limited_and_a_known_address_is_not() {
    let server = behind_a_proxy().await;
    let known = "198.51.100.7";
    Tokens::of(&login_from(&server, known, "ann", PASSWORD).await);
    let mut answered = 0;
    for i in 0..30 {
        let guess = login_from(&server, &format!("203.0.113.{i}"), "ann", "wrong").await;
        answered += u64::from(guess.status == 401);
    }
    assert!(
        (20..=22).contains(&answered),
        "{answered} guesses were answered"
    );
    // The right password is answered as a wrong one would be.
    for password in [PASSWORD, "wrong"] {
        let refused = login_from(&server, "192.0.2.1", "ann", password).await;
        refused.problem("rate-limited", 429);
        assert_eq!(refused.header("ratelimit-limit"), Some("20"));
        assert!((1..=45).contains(&refused.retry_after_s()));
    }
    Tokens::of(&login_from(&server, known, "ann", PASSWORD).await);
    Tokens::of(&login_from(&server, "192.0.2.1", "bob", PASSWORD).await);
    let metrics = server.get("/metrics").await.body;
    let refused = metrics
        .lines()
        .find_map(|line| line.strip_prefix("tokend_login_refusals_total{limit=\"user\"} "));
    let refused: u64 = refused.expect("counted").parse().expect("a number");
    assert_eq!(refused, 30 - answered + 2);
}

#[tokio::test]
async fn an_address_that_makes_names_up_is_limited_and_keeps_nobody_else_from_logging_in() {
    let server = behind_a_proxy().await;
    let (flooding, here) = ("198.51.100.7", "198.51.100.8");
    let flood = (0..80).map(async |i| {
        let mut statuses = Vec::new();
        for n in 0..2 {
            let user = format!("made up {i} {n}");
            statuses.push(login_from(&server, flooding, &user, "wrong").await.status);
        }
        statuses
    });
    let logins = async {
        for _ in 0..10 {
            Tokens::of(&login_from(&server, here, "ann", PASSWORD).await);
        }
    };
    let (statuses, ()) = tokio::join!(join_all(flood), logins);
    let statuses = statuses.concat();
    let answered = statuses.iter().filter(|status| **status == 401).count();
    assert!(answered <= 55, "{answered} guesses were answered");
    assert!(
        statuses
            .iter()
            .all(|status| [401, 429, 503].contains(status))
    );
}

#[tokio::test]
async fn a_full_flow_says_so() {
    let mut config = Fixture::new().await.config;
    config.key_prefix = crate::harness::new_namespace();
    config.flows.session.max = 2;
    let server = Server::on(Fixture::with(config).await).await;
    server.fixture.add_user("ann").await;
    server.login().await;
    let last = server.login().await;
    server
        .try_login("ann", PASSWORD)
        .await
        .problem("flow-full", 503);
    server.logout(&last.refresh).await;
    server.login().await;
}

#[tokio::test]
async fn a_dump_holds_no_token_and_no_password() {
    let server = Server::with_ann().await;
    let mut secrets = vec![PASSWORD.to_owned(), "wr0ng".to_owned()];
    let mut tokens = server.login().await;
    server.try_login("ann", "wr0ng").await;
    for _ in 0..3 {
        secrets.extend([tokens.access.clone(), tokens.refresh.clone()]);
        // Its signature alone would do for whoever has the rest.
        secrets.extend(tokens.refresh.rsplit('.').next().map(ToOwned::to_owned));
        secrets.extend(tokens.access.rsplit('.').next().map(ToOwned::to_owned));
        tokens = server.refresh(&tokens.refresh).await;
    }
    let (_, keys) = server.fixture.dump().await;
    let pool = PoolName::of_flow(Flow::Session);
    assert!(
        keys.keys()
            .any(|key| key.contains(&format!("records:{pool}")))
    );
    for (key, content) in keys {
        let bytes = content.bytes().concat();
        for secret in &secrets {
            let found = bytes
                .windows(secret.len())
                .any(|it| it == secret.as_bytes());
            assert!(
                !found && !key.contains(secret.as_str()),
                "{secret} in {key}"
            );
        }
    }
}
