//! Lifecycle events: what a subscriber is told is what is stored.

use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::prelude::*;
use fred::types::{InfoKind, Message};
use serde_json::{Value, json};
use tokend::store::{AssignRequest, ExchangeRequest};
use tokend::token::rotating::ROTATION_RETRY_DEFAULT;
use tokend::token::*;
use tokio::sync::broadcast::Receiver;

use crate::harness::*;
use crate::verbs::*;

/// Far beyond what a message takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who listens to all partitions of a data set.
struct Listener {
    client: SubscriberClient,
    messages: Receiver<Message>,
    heard: Vec<Value>,
}

impl Listener {
    async fn new(f: &Fixture) -> Self {
        let client = Builder::from_config(Config::from_url(&f.config.url).expect("a URL"))
            .build_subscriber_client()
            .expect("a client");
        client.init().await.expect("Redis answers");
        let messages = client.message_rx();
        let listener = Self {
            client,
            messages,
            heard: Vec::new(),
        };
        let tags = partition_tags(f).await;
        for prefix in tags {
            let channel = format!("{prefix}:events");
            listener
                .client
                .ssubscribe(channel)
                .await
                .expect("SSUBSCRIBE");
        }
        listener
    }

    /// The next event, whatever message it came in. Messages tell Redis's clock, and nothing but events.
    async fn next(&mut self) -> Value {
        while self.heard.is_empty() {
            let message = tokio::time::timeout(PATIENCE, self.messages.recv()).await;
            let message = message.expect("an event comes").expect("none is missed");
            let text = message.value.as_string().expect("a text");
            let told: Value = serde_json::from_str(&text).expect("JSON");
            let members = told.as_object().expect("an object");
            assert_eq!(members.keys().collect::<Vec<_>>(), ["at_ms", "events"]);
            assert!(told["at_ms"].is_u64());
            self.heard = told["events"].as_array().expect("a list").clone();
        }
        self.heard.remove(0)
    }

    /// The next event must be this one.
    async fn hears(&mut self, event: &str, token: &str, state: &str, fence: u64, deadline_ms: u64) {
        let told = self.next().await;
        let pool = told["pool"].clone();
        let wanted = json!({"pool": pool, "token": token, "event": event, "state": state,
            "fence": fence, "deadline_ms": deadline_ms});
        assert_eq!(told, wanted);
    }
}

/// The prefixes of all partitions, used or not.
async fn partition_tags(f: &Fixture) -> Vec<String> {
    // Each has a shard of a flow, once that was used.
    let made = f
        .store
        .create_opaque(Flow::Unified, || "x".repeat(40), None, None);
    made.await.expect("a token");
    f.prefixes().await
}

fn ms(seconds: u64) -> u64 {
    seconds * 1_000
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transition_is_told_as_it_is_stored() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 300, 20)).await;
    let mut listener = Listener::new(&f).await;
    let seen = async |value: &str| {
        let view = f.look(&p, value).await.expect("there");
        (view.fence, view.expires_at_ms.unwrap_or(0))
    };
    f.import(&p, &["a"]).await;
    let (_, idle) = seen("a").await;
    listener.hears("generated", "a", "free", 0, idle).await;
    let grant = f.grant(&p).await;
    let fence = grant.fence.get();
    let (stored, deadline) = seen("a").await;
    assert_eq!((stored, deadline), (fence, grant.expires_at_ms));
    listener
        .hears("granted", "a", "held", fence, deadline)
        .await;
    f.keep(&p, "a", Some(grant.fence), Some(90)).await;
    let (_, deadline) = seen("a").await;
    listener.hears("kept", "a", "held", fence, deadline).await;
    f.unblock(&p, "a", Some(grant.fence)).await;
    let (_, deadline) = seen("a").await;
    listener
        .hears("unblocked", "a", "cooling", fence, deadline)
        .await;
    // The test's clock moves the stored deadlines; what is told later counts from those.
    f.pass(&p, secs(21)).await;
    let idle = deadline - ms(21) + ms(300);
    listener.hears("cooled", "a", "free", fence, idle).await;
    f.keep(&p, "a", None, None).await;
    let (_, deadline) = seen("a").await;
    listener.hears("kept", "a", "free", fence, deadline).await;
    let grant = f.grant(&p).await;
    let (fence, deadline) = (grant.fence.get(), grant.expires_at_ms);
    listener
        .hears("granted", "a", "held", fence, deadline)
        .await;
    // All of it in one sweep: each transition is told, from its own deadline.
    f.pass(&p, secs(60 + 20 + 300 + 1)).await;
    let lapsed = deadline - ms(381);
    listener
        .hears("lapsed", "a", "cooling", fence, lapsed + ms(20))
        .await;
    listener
        .hears("cooled", "a", "free", fence, lapsed + ms(320))
        .await;
    listener.hears("idle", "a", "absent", fence, 0).await;
    f.import(&p, &["b"]).await;
    listener.next().await;
    f.delete(&p, "b").await;
    listener.hears("deleted", "b", "absent", 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_are_told_and_what_becomes_of_them() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let mut listener = Listener::new(&f).await;
    let first = f.grant(&p).await;
    listener.next().await;
    // A waiter of a replica that is not there: its offer is missed.
    let args = ["", "", "", "0", "w1", "wait", "0", "", "0"];
    f.raw("wait", &p, &[&args]).await;
    f.unblock(&p, "a", Some(first.fence)).await;
    listener
        .hears("unblocked", "a", "free", first.fence.get(), 0)
        .await;
    let offered = listener.next().await;
    assert_eq!(
        (&offered["event"], &offered["state"]),
        (&json!("offered"), &json!("held"))
    );
    let fence = offered["fence"].as_u64().expect("a fence");
    assert!(fence > first.fence.get());
    f.pass(&p, secs(3)).await;
    listener.hears("missed", "a", "free", fence, 0).await;
    let held = f.grant(&p).await;
    listener.next().await;
    let waiting = f.wait_for(&p, AssignRequest::default(), secs(60));
    let unblock = async {
        let waits = f.metrics.transitions.clone();
        let waits = waits.with_label_values(&["seats", "wait", "waiting"]);
        eventually("it waits", async || waits.get() > 0).await;
        f.unblock(&p, "a", Some(held.fence)).await;
    };
    let (granted, ()) = tokio::join!(waiting, unblock);
    let Ok(AssignOutcome::Granted(grant)) = granted else {
        panic!("{granted:?}");
    };
    listener
        .hears("unblocked", "a", "free", held.fence.get(), 0)
        .await;
    let offered = listener.next().await;
    assert_eq!(
        (&offered["event"], &offered["fence"]),
        (&json!("offered"), &json!(grant.fence))
    );
    listener
        .hears(
            "granted",
            "a",
            "held",
            grant.fence.get(),
            grant.expires_at_ms,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_token_is_told_by_its_hash_and_a_family_by_its_name() {
    let f = Fixture::new().await;
    let mut listener = Listener::new(&f).await;
    let token = "bearer-".to_owned() + &"y".repeat(40);
    let made = f.store.create_opaque(
        Flow::Unified,
        || "bearer-".to_owned() + &"y".repeat(40),
        None,
        None,
    );
    made.await.expect("a token").expect("there is room");
    let told = listener.next().await;
    assert_eq!(
        (&told["pool"], &told["event"]),
        (&json!("_unified"), &json!("generated"))
    );
    assert_eq!(
        (&told["state"], &told["fence"]),
        (&json!("held"), &json!(1))
    );
    assert!(!told.to_string().contains(&token));
    let metadata = Metadata::default();
    let family = f
        .store
        .create_family(Flow::OneTime, None, metadata.clone())
        .await;
    let (family, _) = family.expect("a family").expect("there is room");
    let told = listener.next().await;
    assert_eq!(
        (&told["pool"], &told["event"]),
        (&json!("_one_time"), &json!("generated"))
    );
    let name = told["token"].clone();
    let request = ExchangeRequest {
        token: family,
        metadata,
        retry: ROTATION_RETRY_DEFAULT,
        renew: true,
        revoke_on_reuse: false,
    };
    let done = f.store.exchange(Flow::OneTime, &request).await;
    done.expect("exchange");
    let told = listener.next().await;
    assert_eq!((&told["event"], &told["token"]), (&json!("rotated"), &name));
    assert_eq!(told["fence"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_is_told_as_it_is() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let mut listener = Listener::new(&f).await;
    let values = weird_values();
    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
    f.import(&p, &texts).await;
    for text in texts {
        listener.hears("generated", text, "free", 0, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_nothing_is_published() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip(
            "where_nobody_listens_nothing_is_published",
            "no redis-server",
        );
    };
    let f = Fixture::on(&redis.url).await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let published = async || {
        let info: String = f
            .redis
            .info(Some(InfoKind::CommandStats))
            .await
            .expect("INFO");
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_spublish:calls="));
        line.map_or(0, |rest| {
            rest.split(',')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("calls")
        })
    };
    let cycle = async || {
        let grant = f.grant(&p).await;
        f.unblock(&p, "a", Some(grant.fence)).await;
    };
    cycle().await;
    assert_eq!(published().await, 0_u64);
    let listener = Listener::new(&f).await;
    let before = published().await;
    cycle().await;
    assert_eq!(published().await, before + 2);
    listener.client.quit().await.expect("bye");
    eventually("Redis has noticed", async || {
        let before = published().await;
        cycle().await;
        published().await == before
    })
    .await;
}
