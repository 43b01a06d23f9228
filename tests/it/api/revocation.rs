//! Revoked is revoked: at once, on every replica, and whatever else happens at the same time.

use tokend::auth::password::hash;

use super::Server;
use super::ann::{PASSWORD, Tokens, name};

/// Rounds of a race.
const ROUNDS: usize = 25;

impl Server {
    /// Neither of them is good here.
    async fn assert_dead(&self, tokens: &Tokens) {
        assert!(!self.is_valid(&tokens.access).await);
        assert!(!self.is_active(&tokens.access).await);
        assert!(!self.is_active(&tokens.refresh).await);
        let refreshed = self.try_refresh(&tokens.refresh).await;
        refreshed.problem("invalid-grant", 401);
    }

    async fn assert_alive(&self, tokens: &Tokens) {
        assert!(self.is_valid(&tokens.access).await);
        assert!(self.is_active(&tokens.access).await && self.is_active(&tokens.refresh).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_is_dead_on_every_replica_right_after_its_end() {
    let here = Server::with_ann().await;
    let there = here.twin().await;
    let (ann, store) = (name("ann"), &there.fixture.store);
    for end in [
        "logout",
        "revoke",
        "revoke by access token",
        "oauth",
        "passwd",
        "deletion",
    ] {
        let tokens = here.login().await;
        here.assert_alive(&tokens).await;
        there.assert_alive(&tokens).await;
        match end {
            "logout" => there.logout(&tokens.refresh).await,
            "revoke" => drop(there.revoke(&tokens.refresh).await),
            "revoke by access token" => drop(there.revoke(&tokens.access).await),
            "oauth" => there.revoke_standard(&tokens.access).await,
            "passwd" => {
                let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
                assert_eq!(store.set_password(&ann, &hash).await, Ok(true));
            }
            _ => assert_eq!(store.delete_user(&ann).await, Ok(true)),
        }
        here.assert_dead(&tokens).await;
        there.assert_dead(&tokens).await;
        if end == "deletion" {
            here.fixture.add_user("ann").await;
            here.assert_dead(&tokens).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_in_flight_does_not_revive_a_session() {
    let here = Server::with_ann().await;
    let there = here.twin().await;
    for round in 0..ROUNDS {
        let first = here.login().await;
        let refreshing = async {
            let mut all = vec![first.clone()];
            while let Some(last) = all.last().cloned() {
                let answer = here.try_refresh(&last.refresh).await;
                if answer.status != 200 {
                    answer.problem("invalid-grant", 401);
                    break;
                }
                all.push(Tokens::of(&answer));
            }
            all
        };
        let revoking = async {
            // Somewhere between the first refresh and the last.
            for _ in 0..round % 7 {
                there.is_valid(&first.access).await;
            }
            match round % 3 {
                0 => there.logout(&first.refresh).await,
                1 => drop(there.revoke(&first.access).await),
                _ => there.revoke_standard(&first.refresh).await,
            }
        };
        let (all, ()) = tokio::join!(refreshing, revoking);
        for tokens in &all {
            here.assert_dead(tokens).await;
            there.assert_dead(tokens).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_across_a_change_of_the_password_has_one_fate_everywhere() {
    let here = Server::with_ann().await;
    let there = here.twin().await;
    let (ann, store) = (name("ann"), &there.fixture.store);
    for _ in 0..ROUNDS {
        let before = here.login().await;
        let changing = async {
            let hash = bcrypt::hash(PASSWORD, 4).expect("hashed");
            assert_eq!(store.set_password(&ann, &hash).await, Ok(true));
        };
        let (across, ()) = tokio::join!(here.login(), changing);
        here.assert_dead(&before).await;
        // It was verified against the old password or the new one, and both replicas know which.
        if here.is_valid(&across.access).await {
            there.assert_alive(&across).await;
        } else {
            there.assert_dead(&across).await;
        }
    }
}

#[tokio::test]
async fn a_new_password_is_the_only_one() {
    let server = Server::with_ann().await;
    let new = hash("another").expect("hashed");
    let store = &server.fixture.store;
    assert_eq!(store.set_password(&name("ann"), &new).await, Ok(true));
    let refused = server.try_login("ann", PASSWORD).await;
    refused.problem("invalid-credentials", 401);
    Tokens::of(&server.try_login("ann", "another").await);
}
