//! What may happen at once, and what a rolling change of secrets must not break.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokend::auth::jwt::new_private_key;

use super::ann::{PAST_RETRY, Tokens};
use super::{Server, flows_with};
use crate::process::Directory;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refreshes_at_once_have_one_successor() {
    let server = Server::with_ann().await;
    let other = server.twin().await;
    let first = server.login().await;
    let refreshes = (0..100).map(|i| [&server, &other][i % 2].refresh(&first.refresh));
    let successors: BTreeSet<_> = join_all(refreshes)
        .await
        .into_iter()
        .map(|tokens| tokens.refresh)
        .collect();
    assert_eq!(successors.len(), 1);
    let second = successors.first().expect("one");
    let third = server.refresh(second).await;
    assert!(server.is_valid(&third.access).await, "nothing was revoked");
}

/// The answer to a refresh is lost, Redis is away for 14 s, and the client retries as the 503 answers told it to.
#[tokio::test]
async fn an_outage_behind_a_lost_answer_ends_no_session() {
    let server = Server::with_ann().await;
    let first = server.login().await;
    let lost = server.refresh(&first.refresh).await;
    server.fixture.pass_sessions(Duration::from_secs(14)).await;
    let retried = server.refresh(&first.refresh).await;
    assert_eq!(retried.refresh, lost.refresh);
    assert!(server.is_valid(&retried.access).await);
    server.refresh(&retried.refresh).await;
}

#[tokio::test]
async fn a_stolen_token_whose_successor_was_exchanged_ends_its_session_within_the_time_for_retries()
{
    let server = Server::with_ann().await;
    let stolen = server.login().await;
    let thiefs = server.refresh(&stolen.refresh).await;
    let thiefs = server.refresh(&thiefs.refresh).await;
    server.fixture.pass_sessions(Duration::from_secs(14)).await;
    server
        .try_refresh(&stolen.refresh)
        .await
        .problem("token-reused", 401);
    assert!(!server.is_valid(&thiefs.access).await);
}

#[tokio::test]
async fn rotation_retry_says_how_long_a_retry_gets_the_same_successor() {
    let first = Server::with_ann().await;
    let fixture = first.fixture.replica().await;
    let server = Server::with_flows(fixture, |_| flows_with(&[("ROTATION_RETRY", "10")])).await;
    let tokens = server.login().await;
    server.refresh(&tokens.refresh).await;
    server.fixture.pass_sessions(Duration::from_secs(9)).await;
    server.refresh(&tokens.refresh).await;
    server.fixture.pass_sessions(Duration::from_secs(2)).await;
    server
        .try_refresh(&tokens.refresh)
        .await
        .problem("token-reused", 401);
}

#[tokio::test]
async fn a_thief_and_the_owner_cannot_both_go_on() {
    let server = Server::with_ann().await;
    let stolen = server.login().await;
    let thiefs = server.refresh(&stolen.refresh).await;
    server.fixture.pass_sessions(PAST_RETRY).await;
    server
        .try_refresh(&stolen.refresh)
        .await
        .problem("token-reused", 401);
    server
        .try_refresh(&thiefs.refresh)
        .await
        .problem("invalid-grant", 401);
    assert!(!server.is_valid(&thiefs.access).await);
}

/// Each step of a rollout as two replicas meet it, the second one step behind; keys are a list.
const ROLLOUT: [(&str, &str); 7] = [
    ("old", "old"),
    ("old,new", "old"),
    ("old,new", "old,new"),
    ("new,old", "old,new"),
    ("new,old", "new,old"),
    ("new", "new,old"),
    ("new", "new"),
];

/// Refreshes and checks on both replicas of each step; `settings` says what a list of keys is called there.
async fn roll_out<'a>(settings: impl Fn(&str) -> Vec<(&'a str, String)>) {
    let first = Server::with_ann().await;
    let mut tokens: Option<Tokens> = None;
    for (ahead, behind) in ROLLOUT {
        let server = async |keys: &str| {
            let settings = settings(keys);
            let settings: Vec<_> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let fixture = first.fixture.replica().await;
            Server::with_flows(fixture, |_| flows_with(&settings)).await
        };
        let (ahead, behind) = (server(ahead).await, server(behind).await);
        let mut held = match tokens.take() {
            Some(held) => held,
            None => ahead.login().await,
        };
        for (here, there) in [(&ahead, &behind), (&behind, &ahead), (&ahead, &behind)] {
            held = here.refresh(&held.refresh).await;
            assert!(here.is_valid(&held.access).await && there.is_valid(&held.access).await);
            let login = here.login().await;
            assert!(there.is_valid(&login.access).await);
            there.refresh(&login.refresh).await;
        }
        tokens = Some(held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_roll_out_without_a_failing_request() {
    roll_out(|keys| {
        let secret = |kind: &str| {
            let long = |key: &str| format!("{kind}-{}", key.repeat(16));
            keys.split(',').map(long).collect::<Vec<_>>().join(",")
        };
        vec![
            ("REFRESH_TOKEN_SECRET", secret("refresh")),
            ("JWT_SECRET", secret("access")),
        ]
    })
    .await;
}

/// A new private key for this user alone.
pub fn key_file(directory: &Path, name: &str) -> String {
    let path = directory.join(format!("{name}.pem"));
    std::fs::write(&path, new_private_key().expect("a key")).expect("a file");
    let closed = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, closed).expect("chmod");
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn private_keys_roll_out_without_a_failing_request() {
    let directory = Directory::new();
    for name in ["old", "new"] {
        key_file(directory.path(), name);
    }
    roll_out(|keys| {
        let path = |key: &str| {
            directory
                .path()
                .join(format!("{key}.pem"))
                .display()
                .to_string()
        };
        let files: Vec<_> = keys.split(',').map(path).collect();
        vec![
            ("JWT_PRIVATE_KEY_FILE", files.join(",")),
            ("JWT_SECRET", String::new()),
        ]
    })
    .await;
}
