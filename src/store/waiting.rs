//! Waiting for a token: the patience of one request. The line itself is in Redis (`lua/wait.lua`).
//!
//! A waiter asks every second or so: that keeps it alive, and is all that correctness needs. What makes it
//! prompt is a message that names the waiters who have an offer, a hint that may be lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use prometheus::IntGauge;
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::assign::{AssignRequest, Offer};
use super::fingerprint::fingerprint;
use super::shard::Place;
use super::wait::{Spot, Step, Wait, Waited};
use super::{Inner, Store};
use crate::metrics::Refused;
use crate::token::{AssignOutcome, PoolName, StoreError};
use crate::traces::Caller;

/// Longest time between two questions of a waiter: half of what the script takes for death, so that one may be
/// lost.
const ASK_MS_MAX: u64 = 1_000;
/// A little of chance, so that a crowd that came at once does not ask at once.
const JITTER_MS: u64 = 250;
/// Pause after a question that failed: Redis is away, and whoever is late when it is back may lose its place.
const RETRY: Duration = Duration::from_millis(250);
/// Rounds of asking in a row while there is an offer: one tells of it, the next takes it. More, where it was
/// deleted just then.
const ROUNDS_MAX: usize = 4;

/// Who waits on this replica.
pub(super) struct Waits {
    /// Waiter → its bell. Requests with the same idempotency key are one waiter.
    bells: Mutex<HashMap<String, watch::Sender<()>>>,
    ending: watch::Sender<bool>,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            bells: Mutex::default(),
            ending: watch::Sender::new(false),
        }
    }
}

impl Waits {
    fn enter(&self, waiter: &str) -> watch::Receiver<()> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let bell = bells.entry(waiter.to_owned());
        bell.or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Takes away the bells that nobody hears any more: this waiter's, but for requests with the same key.
    fn leave(&self, waiter: &str) {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if bells.get(waiter).is_some_and(watch::Sender::is_closed) {
            bells.remove(waiter);
        }
    }

    /// A message on a partition's channel of wakes: the waiters that have an offer, of all replicas.
    pub fn wake(&self, waiters: &str) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in waiters.split(' ').filter_map(|waiter| bells.get(waiter)) {
            bell.send_replace(());
        }
    }
}

/// One request that waits. Dropped before its end, its client has gone: without an idempotency key it leaves the
/// line, and what it was offered goes to the next. With a key its place stays for a moment, for the retry.
struct Waiter {
    inner: Arc<Inner>,
    pool: PoolName,
    request: AssignRequest,
    id: String,
    /// Where it stands in line, by the numbers of the pool's shards.
    spots: Vec<(usize, Spot)>,
    /// When a token may be free, as the first assign said; a hint.
    retry_after_ms: Option<u64>,
    bell: Option<watch::Receiver<()>>,
    ended: bool,
    waiters: IntGauge,
}

impl Waiter {
    fn new(inner: &Arc<Inner>, pool: &PoolName, request: &AssignRequest, shards: usize) -> Self {
        let id = match &request.key {
            Some(key) => format!("k{}", fingerprint([key.as_str()])),
            None => format!("w{:032x}", rand::random::<u128>()),
        };
        let waiters = inner.metrics.waiters.with_label_values(&[pool.as_str()]);
        waiters.inc();
        Self {
            bell: Some(inner.waits.enter(&id)),
            inner: inner.clone(),
            pool: pool.clone(),
            request: request.clone(),
            id,
            spots: (0..shards).map(|shard| (shard, Spot::default())).collect(),
            retry_after_ms: None,
            ended: false,
            waiters,
        }
    }

    /// One step in one shard's line. `None`: the pool is gone.
    async fn step(
        &self,
        shard: usize,
        step: Step,
        spot: Spot,
    ) -> Result<Option<Waited>, StoreError> {
        let item = |shard| Wait {
            shard,
            request: self.request.clone(),
            waiter: self.id.clone(),
            step,
            spot: spot.clone(),
        };
        let batchers = &self.inner.batchers.wait;
        let done = self
            .inner
            .run(&self.pool, Place::Number(shard), batchers, item);
        done.await
    }

    /// What ends the waiting, if anything.
    fn outcome(&self, waited: Option<Waited>) -> Option<AssignOutcome<Offer>> {
        match waited {
            None => Some(AssignOutcome::PoolNotFound),
            Some(Waited::Granted(grant, shard)) => {
                let keyed = self.request.key.is_some();
                let offer = Offer::new(grant, shard, keyed, Arc::downgrade(&self.inner));
                Some(AssignOutcome::Granted(offer))
            }
            Some(Waited::LeaseLost) => Some(AssignOutcome::LeaseLost),
            Some(Waited::IdempotencyMismatch) => Some(AssignOutcome::IdempotencyMismatch),
            Some(Waited::Offered(..) | Waited::Waiting { .. } | Waited::Full | Waited::Left) => {
                None
            }
        }
    }

    /// One question to every shard. At most one offer is taken up, so that there is never a second grant; it is
    /// known before it is taken, so its fence finds it where an answer is lost.
    async fn ask(&mut self) -> Result<Option<AssignOutcome<Offer>>, StoreError> {
        let taking = self.spots.iter().position(|(_, spot)| spot.offer.is_some());
        let asked = self.spots.iter().enumerate().map(|(n, (shard, spot))| {
            let mut spot = spot.clone();
            spot.offer = spot.offer.filter(|_| taking == Some(n));
            self.step(*shard, Step::Stay, spot)
        });
        let answers = join_all(asked).await;
        let (mut failed, mut full) = (None, true);
        for (n, answer) in answers.into_iter().enumerate() {
            let (_, spot) = &mut self.spots[n];
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            full &= matches!(answer, Some(Waited::Full));
            match &answer {
                Some(Waited::Waiting { ticket }) => {
                    *spot = Spot {
                        ticket: *ticket,
                        offer: None,
                    }
                }
                Some(Waited::Offered(token, fence)) => spot.offer = Some((token.clone(), *fence)),
                _ => {}
            }
            if let Some(outcome) = self.outcome(answer) {
                self.spots.remove(n);
                return Ok(Some(outcome));
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let retry_after_ms = self.retry_after_ms;
        Ok(full.then_some(AssignOutcome::Empty { retry_after_ms }))
    }

    /// Asks, and goes on where there is an offer. `None`: it waits on.
    async fn stay(&mut self) -> Result<Option<AssignOutcome<Offer>>, StoreError> {
        for _ in 0..ROUNDS_MAX {
            let ended = self.ask().await?;
            if ended.is_some() || self.spots.iter().all(|(_, spot)| spot.offer.is_none()) {
                return Ok(ended);
            }
        }
        Ok(None)
    }

    /// Waits until granted, or until it can't be, or until the time is over: `None`. While Redis is away it goes
    /// on, since it may come back.
    async fn wait(&mut self, until: Instant) -> Result<Option<AssignOutcome<Offer>>, StoreError> {
        let mut ending = self.inner.waits.ending.subscribe();
        loop {
            let pause = match self.stay().await {
                Ok(None) => ask_pause(),
                Err(StoreError::Protocol(told)) => return Err(StoreError::Protocol(told)),
                Err(error) => {
                    debug!(%error, "a waiter could not ask");
                    RETRY
                }
                ended => return ended,
            };
            let next = (Instant::now() + pause).min(until);
            let over = tokio::select! {
                () = tokio::time::sleep_until(next) => Instant::now() >= until,
                () = rings(self.bell.as_mut()) => false,
                () = ends(&mut ending) => true,
            };
            if over {
                return self.leave().await;
            }
        }
    }

    /// Leaves every line, and takes what it is offered in one of them.
    async fn leave(&mut self) -> Result<Option<AssignOutcome<Offer>>, StoreError> {
        while let Some((shard, spot)) = self.spots.last() {
            let (shard, spot) = (*shard, spot.clone());
            let answer = self.step(shard, Step::Leave, spot).await?;
            self.spots.pop();
            if let Some(outcome) = self.outcome(answer) {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// It has its answer: where it still stands in line, it goes.
    fn end(mut self) {
        self.ended = true;
        self.abandon();
    }

    /// Tells the shards that nobody is there any more. If that can't be sent, they know within 2 s.
    fn abandon(&mut self) {
        let spots = std::mem::take(&mut self.spots);
        if spots.is_empty() {
            return;
        }
        let inner = self.inner.clone();
        let (pool, request, waiter) = (self.pool.clone(), self.request.clone(), self.id.clone());
        let runtime = inner.runtime.clone();
        let leave = async move {
            for (shard, spot) in spots {
                let item = |shard| Wait {
                    shard,
                    request: request.clone(),
                    waiter: waiter.clone(),
                    step: Step::Abandon,
                    spot: spot.clone(),
                };
                let batchers = &inner.batchers.wait;
                let gone = inner.run(&pool, Place::Number(shard), batchers, item).await;
                debug!(told = gone.is_ok(), "a waiter has left");
            }
        };
        runtime.spawn(Caller::current().carry(leave));
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.bell = None;
        self.inner.waits.leave(&self.id);
        self.waiters.dec();
        if !self.ended && self.request.key.is_none() {
            self.abandon();
        }
    }
}

/// Its sender lives as long as a receiver does, so this ends with a ring alone.
async fn rings(bell: Option<&mut watch::Receiver<()>>) {
    let rang = match bell {
        Some(bell) => bell.changed().await.is_ok(),
        None => false,
    };
    if !rang {
        std::future::pending::<()>().await;
    }
}

fn ask_pause() -> Duration {
    Duration::from_millis(ASK_MS_MAX - rand::rng().random_range(0..JITTER_MS))
}

fn stopping() -> StoreError {
    StoreError::Unavailable("the service stops".to_owned())
}

async fn ends(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

impl Store {
    /// Grants a token; if there is none, waits for one in line with all others who wait, on whatever replica.
    ///
    /// # Errors
    /// When Redis could not answer the first question or the last one, or the service stops; see [`StoreError`].
    pub async fn assign_within(
        &self,
        pool: &PoolName,
        request: AssignRequest,
        wait: Duration,
    ) -> Result<AssignOutcome<Offer>, StoreError> {
        let done = self.assign_or_wait(pool, request, wait).await;
        if let Ok(AssignOutcome::Empty { .. }) = done {
            self.inner.metrics.refused(pool.as_str(), Refused::Assign);
        }
        done
    }

    async fn assign_or_wait(
        &self,
        pool: &PoolName,
        request: AssignRequest,
        wait: Duration,
    ) -> Result<AssignOutcome<Offer>, StoreError> {
        let until = Instant::now() + wait;
        let first = self.assign(pool, request.clone()).await?;
        let AssignOutcome::Empty { retry_after_ms } = first else {
            return Ok(first);
        };
        if wait.is_zero() {
            return Ok(first);
        }
        let entry = self.inner.registry.entry(&self.inner, pool).await?;
        let shards = entry.map_or(1, |entry| entry.policy.shards as usize);
        if shards > 1 && request.key.is_some() {
            return self.ask_again(pool, &request, until).await;
        }
        let mut waiter = Waiter::new(&self.inner, pool, &request, shards);
        waiter.retry_after_ms = retry_after_ms;
        let waited = waiter.wait(until).await;
        match waited {
            Err(error) => return Err(error), // dropped, it leaves
            Ok(Some(outcome)) => {
                waiter.end();
                return Ok(outcome);
            }
            Ok(None) => waiter.end(),
        }
        if *self.inner.waits.ending.borrow() {
            return Err(stopping());
        }
        // Once more without waiting, for a hint of when to come back.
        self.assign(pool, request).await
    }

    /// A request with a key does not stand in the lines of several shards: two with one key could take two offers.
    /// It assigns again and again, which finds what the other got.
    async fn ask_again(
        &self,
        pool: &PoolName,
        request: &AssignRequest,
        until: Instant,
    ) -> Result<AssignOutcome<Offer>, StoreError> {
        let mut ending = self.inner.waits.ending.subscribe();
        loop {
            let next = (Instant::now() + ask_pause()).min(until);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = ends(&mut ending) => return Err(stopping()),
            }
            match self.assign(pool, request.clone()).await {
                Ok(AssignOutcome::Empty { .. })
                | Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_))
                    if Instant::now() < until => {}
                done => return done,
            }
        }
    }

    /// Ends all waiting, as if its time were over: the service stops.
    pub fn stop_waiting(&self) {
        self.inner.waits.ending.send_replace(true);
    }
}
