//! Clients that take, keep and let go, over HTTP, and record every request and answer for the checker.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt;
use serde_json::{Value, json};
use tokend::token::{Fence, Grant, TokenValue};

use crate::support::history::{Did, Event, History};

/// Pause after an answer that says that there is none, or no answer.
const BREATH: Duration = Duration::from_millis(20);

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It did not run.
    Unavailable,
    /// It may have run.
    Unknown,
}

/// What clients do, and what they saw.
pub struct World {
    pub http: reqwest::Client,
    /// Where requests go, at random.
    pub bases: Vec<String>,
    pub pool: String,
    pub shards: u32,
    pub events: Mutex<Vec<Event>>,
    pub failures: Mutex<Vec<(Instant, Failed)>>,
    pub answered: AtomicUsize,
    /// What should never be seen, as it happens.
    pub surprises: Mutex<Vec<String>>,
    pub stop: AtomicBool,
}

impl World {
    pub fn new(http: reqwest::Client, bases: Vec<String>, pool: &str, shards: u32) -> Arc<Self> {
        Arc::new(Self {
            http,
            bases,
            pool: pool.to_owned(),
            shards,
            events: Mutex::default(),
            failures: Mutex::default(),
            answered: AtomicUsize::new(0),
            surprises: Mutex::default(),
            stop: AtomicBool::new(false),
        })
    }

    pub fn history(&self) -> History {
        History {
            events: self.events.lock().expect("no panic").clone(),
            shards: self.shards,
        }
    }

    fn note(&self, start: Instant, did: Did) {
        let event = Event {
            start,
            end: Instant::now(),
            replica: 0,
            did,
        };
        self.events.lock().expect("no panic").push(event);
    }

    fn surprise(&self, what: String) {
        self.surprises.lock().expect("no panic").push(what);
    }

    fn failed(&self, how: Failed) -> Failed {
        let mut failures = self.failures.lock().expect("no panic");
        failures.push((Instant::now(), how));
        how
    }

    /// One request to a replica at random.
    pub async fn call(
        &self,
        verb: &str,
        key: Option<&str>,
        body: &Value,
    ) -> Result<(u16, Value), Failed> {
        let base = &self.bases[rand::rng().random_range(0..self.bases.len())];
        let url = format!("{base}/v1/pools/{}/{verb}", self.pool);
        let mut request = self.http.post(url).json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Err(self.failed(Failed::Unavailable)),
            Err(_) => return Err(self.failed(Failed::Unknown)),
        };
        let status = answer.status().as_u16();
        let Ok(body) = answer.json::<Value>().await else {
            return Err(self.failed(Failed::Unknown));
        };
        if status != 503 {
            self.answered.fetch_add(1, Ordering::Relaxed);
            return Ok((status, body));
        }
        let unknown = body["type"] == "/problems/outcome-unknown";
        Err(self.failed(if unknown {
            Failed::Unknown
        } else {
            Failed::Unavailable
        }))
    }

    /// Takes, works, and lets go or leaves it to lapse, until told to stop.
    pub async fn live(self: Arc<Self>, number: usize) {
        let mut round = 0u64;
        while !self.stop.load(Ordering::Relaxed) {
            round += 1;
            let lifetime = rand::rng().random_range(1.0..2.5);
            let body = json!({"lifetime": lifetime, "holder": format!("client-{number}")});
            let keyed = rand::rng().random_bool(0.5);
            let key = keyed.then(|| format!("{number}-{round}"));
            match self.assign(key.as_deref(), &body).await {
                Some(grant) => self.hold(&grant).await,
                None => tokio::time::sleep(BREATH).await,
            }
        }
    }

    /// With a key it is safe to ask again until there is an answer.
    async fn assign(&self, key: Option<&str>, body: &Value) -> Option<Grant> {
        loop {
            let start = Instant::now();
            let answer = self.call("assign", key, body).await;
            match answer {
                Ok((200, told)) => match grant(&told) {
                    Some(grant) => {
                        self.note(start, Did::Granted(grant.clone()));
                        return Some(grant);
                    }
                    None => self.surprise(format!("a grant of another form: {told}")),
                },
                // None is free, or a keyed retry found that its lease has ended meanwhile.
                Ok((404 | 409, _)) => return None,
                Ok((status, told)) => self.surprise(format!("assign: {status} {told}")),
                Err(failed) => {
                    if failed == Failed::Unknown {
                        self.note(start, Did::MaybeGranted);
                    }
                    if key.is_some() && !self.stop.load(Ordering::Relaxed) {
                        tokio::time::sleep(BREATH).await;
                        continue;
                    }
                }
            }
            return None;
        }
    }

    async fn hold(&self, grant: &Grant) {
        let body = json!({"token": grant.token.as_str(), "fence": grant.fence.get()});
        let work = |most: f64| {
            let ms = grant.expires_in_ms as f64 * rand::rng().random_range(0.0..most);
            tokio::time::sleep(Duration::from_secs_f64(ms / 1_000.0))
        };
        work(0.4).await;
        if rand::rng().random_bool(0.5) {
            self.keep_alive(grant, &body).await;
            work(0.4).await;
        }
        if rand::rng().random_bool(0.8) {
            self.unblock(grant, &body).await;
        }
    }

    async fn keep_alive(&self, grant: &Grant, body: &Value) {
        let (start, token, fence) = (Instant::now(), grant.token.clone(), grant.fence);
        let did = match self.call("keep-alive", None, body).await {
            Ok((200, told)) => match times(&told) {
                Some((expires_at_ms, expires_in_ms)) => Did::Kept {
                    token,
                    fence,
                    expires_at_ms,
                    expires_in_ms,
                },
                None => return self.surprise(format!("kept, of another form: {told}")),
            },
            other => match self.ended(grant, "keep-alive", other) {
                Some(did) => did,
                None => return,
            },
        };
        self.note(start, did);
    }

    async fn unblock(&self, grant: &Grant, body: &Value) {
        let start = Instant::now();
        let did = match self.call("unblock", None, body).await {
            Ok((200, _)) => Did::Released {
                token: grant.token.clone(),
                fence: Some(grant.fence),
            },
            other => match self.ended(grant, "unblock", other) {
                Some(did) => did,
                None => return,
            },
        };
        self.note(start, did);
    }

    /// What an answer that is no success means for the hold.
    fn ended(
        &self,
        grant: &Grant,
        verb: &str,
        answer: Result<(u16, Value), Failed>,
    ) -> Option<Did> {
        let (token, fence) = (grant.token.clone(), grant.fence);
        match answer {
            Ok((409, _)) => Some(Did::Lost { token, fence }),
            Ok((404, _)) => Some(Did::Absent(token)),
            Err(Failed::Unknown) => Some(Did::MaybeEnded {
                token,
                fence: Some(fence),
                deleted: false,
            }),
            Err(Failed::Unavailable) => None,
            Ok((status, told)) => {
                self.surprise(format!("{verb}: {status} {told}"));
                None
            }
        }
    }
}

/// A grant as it was answered.
pub fn grant(told: &Value) -> Option<Grant> {
    let (expires_at_ms, expires_in_ms) = times(told)?;
    Some(Grant {
        token: TokenValue::parse(told["token"].as_str()?).ok()?,
        fence: Fence::parse(told["fence"].as_u64()?).ok()?,
        expires_at_ms,
        expires_in_ms,
        holder: None,
    })
}

/// `expires_at` and `expires_in`, in ms.
fn times(told: &Value) -> Option<(u64, u64)> {
    let at = humantime::parse_rfc3339(told["expires_at"].as_str()?).ok()?;
    let at = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let within = Duration::from_secs_f64(told["expires_in"].as_f64()?);
    let ms = |time: Duration| u64::try_from((time + Duration::from_micros(500)).as_millis()).ok();
    Some((ms(at)?, ms(within)?))
}
