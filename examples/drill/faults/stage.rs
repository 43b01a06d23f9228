//! Where a drill plays: a Redis of some kind, replicas before it, clients before those.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokend::token::PoolCounts;

use super::load::World;
use crate::process::{self, Process};
use crate::support::history::{Did, Event, Judged};
use crate::support::{Cluster, OwnRedis, Sentinel, eventually};

pub const TOKENS: usize = 30;
const CLIENTS: usize = 24;
const POOL: &str = "drill";
/// Longest that everything may take to come back after the last client stopped.
const SETTLE: Duration = Duration::from_secs(20);
/// Longest that a recovery may take.
pub const RECOVER_MAX: Duration = Duration::from_secs(10);

/// The Redis of a drill.
pub enum Place {
    Single(OwnRedis),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

impl Place {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Single(_) => "single",
            Self::Sentinel(_) => "sentinel",
            Self::Cluster(_) => "cluster",
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Single(redis) => redis.url.clone(),
            Self::Sentinel(redis) => redis.url(),
            Self::Cluster(redis) => redis.url(),
        }
    }

    pub fn single(&mut self) -> &mut OwnRedis {
        match self {
            Self::Single(redis) => redis,
            Self::Sentinel(_) | Self::Cluster(_) => panic!("this drill is for a single Redis"),
        }
    }

    pub fn sentinel(&mut self) -> &mut Sentinel {
        match self {
            Self::Sentinel(redis) => redis,
            Self::Single(_) | Self::Cluster(_) => panic!("this drill is for Sentinel"),
        }
    }

    pub fn cluster(&mut self) -> &mut Cluster {
        match self {
            Self::Cluster(redis) => redis,
            Self::Single(_) | Self::Sentinel(_) => panic!("this drill is for a Cluster"),
        }
    }
}

/// How one replica is started.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    /// Besides the stage's, such as what makes its clock wrong.
    pub env: Vec<(&'static str, String)>,
    /// Instead of the place's.
    pub redis_url: Option<String>,
}

pub struct Stage {
    pub place: Place,
    pub how: Vec<Replica>,
    pub ports: Vec<u16>,
    pub replicas: Vec<Process>,
    pub world: Arc<World>,
    pub faults: Vec<Instant>,
    env: Vec<(String, String)>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

/// What was seen.
pub struct Seen {
    pub operations: usize,
    pub faults: usize,
    pub judged: Judged,
    pub lost: usize,
    pub failed: usize,
    pub recovered: Duration,
    pub surprises: Vec<String>,
}

impl Stage {
    /// Replicas that are ready, and a pool with tokens. `front`: where requests go instead of to the replicas.
    pub async fn set(place: Place, how: Vec<Replica>, env: &[(&str, &str)]) -> Self {
        let ports: Vec<u16> = how.iter().map(|_| process::free_port()).collect();
        let bases = ports.iter().map(|port| format!("http://127.0.0.1:{port}"));
        let http = process::http();
        // In a cluster two for each primary, so that every primary's death is felt by the pool.
        let shards = if matches!(place, Place::Cluster(_)) {
            6
        } else {
            2
        };
        let mut stage = Self {
            world: World::new(http.clone(), bases.collect(), POOL, shards),
            place,
            how,
            ports,
            replicas: Vec::new(),
            faults: Vec::new(),
            env: env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            clients: Vec::new(),
        };
        for n in 0..stage.how.len() {
            let replica = stage.start(n);
            stage.replicas.push(replica);
        }
        for port in &stage.ports {
            process::ready(&http, *port).await;
        }
        stage.fill().await;
        stage
    }

    /// Starts the n-th replica.
    pub fn start(&self, n: usize) -> Process {
        let how = &self.how[n];
        let url = how.redis_url.clone().unwrap_or_else(|| self.place.url());
        let mut command = Command::new(process::program());
        command
            .arg("serve")
            .env("HOST", "127.0.0.1")
            .env("PORT", self.ports[n].to_string())
            .env("LOG_LEVEL", "error")
            .env("REDIS_URL", url)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(how.env.iter().map(|(name, value)| (*name, value)));
        Process::start(&mut command)
    }

    async fn fill(&self) {
        let shards = self.world.shards;
        let url = format!("{}/v1/pools/{POOL}", self.world.bases[0]);
        let policy = json!({"lifetime": 2, "shards": shards, "max_tokens": 600});
        let put = self.world.http.put(&url).json(&policy).send().await;
        assert!(put.is_ok_and(|put| put.status().is_success()), "a pool");
        let start = Instant::now();
        let values: Vec<String> = (0..TOKENS).map(|n| format!("seat-{n}")).collect();
        let added = self
            .world
            .call("generate", None, &json!({"tokens": values}))
            .await;
        assert!(matches!(added, Ok((201, _))), "tokens: {added:?}");
        let parse = |value: &String| tokend::token::TokenValue::parse(value).expect("a token");
        self.world.events.lock().expect("no panic").push(Event {
            start,
            end: Instant::now(),
            replica: 0,
            did: Did::Generated(values.iter().map(parse).collect()),
        });
    }

    /// Sends all requests to one port, where something stands before the replicas.
    pub fn go_through(&mut self, port: u16) {
        let front = World::new(
            self.world.http.clone(),
            vec![format!("http://127.0.0.1:{port}")],
            POOL,
            self.world.shards,
        );
        front
            .events
            .lock()
            .expect("no panic")
            .extend(self.world.history().events);
        self.world = front;
    }

    pub fn begin_load(&mut self) {
        self.clients = (0..CLIENTS)
            .map(|number| tokio::spawn(self.world.clone().live(number)))
            .collect();
    }

    /// Lets the load go on for a while.
    pub async fn load_for(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    /// Something is about to be done to it.
    pub fn fault(&mut self) {
        self.faults.push(Instant::now());
    }

    /// Ends the load, lets all leases end, and judges.
    pub async fn judge(mut self) -> Seen {
        self.world.stop.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            client.await.expect("a client's task");
        }
        let start = Instant::now();
        let counts = self.settled().await;
        let end = Instant::now();
        let event = Event {
            start,
            end,
            replica: 0,
            did: Did::Counted(counts),
        };
        self.world.events.lock().expect("no panic").push(event);
        let mut judged = self.world.history().judge(600);
        judged.lost.extend(self.missing().await);
        let failures = self.world.failures.lock().expect("no panic").clone();
        let surprises = self.world.surprises.lock().expect("no panic").clone();
        Seen {
            operations: self.world.answered.load(Ordering::Relaxed),
            faults: self.faults.len(),
            lost: TOKENS.saturating_sub(usize::try_from(counts.total()).unwrap_or(0)),
            failed: failures.len(),
            recovered: self.longest_recovery(&failures),
            judged,
            surprises,
        }
    }

    /// From each fault to the last request that failed before the next one.
    fn longest_recovery(&self, failures: &[(Instant, super::load::Failed)]) -> Duration {
        let ends = self.faults.iter().skip(1).map(Some).chain([None]);
        let spans = self.faults.iter().zip(ends).map(|(fault, next)| {
            let within = failures
                .iter()
                .map(|(at, _)| *at)
                .filter(|at| at > fault && next.is_none_or(|next| at < next));
            within.max().map_or(Duration::ZERO, |last| last - *fault)
        });
        spans.max().unwrap_or_default()
    }

    /// How many tokens are free now.
    pub async fn free(&self) -> usize {
        let url = format!("{}/v1/pools/{POOL}", self.world.bases[0]);
        let Ok(answer) = self.world.http.get(&url).send().await else {
            return 0;
        };
        let told = answer.json::<Value>().await.unwrap_or_default();
        told["free"]
            .as_u64()
            .map_or(0, |free| usize::try_from(free).unwrap_or(0))
    }

    /// The counts once nothing is held any more, or after too long.
    async fn settled(&self) -> PoolCounts {
        let url = format!("{}/v1/pools/{POOL}", self.world.bases[0]);
        let until = Instant::now() + SETTLE;
        loop {
            let mut counts = PoolCounts::default();
            if let Ok(answer) = self.world.http.get(&url).send().await {
                let told = answer.json::<Value>().await.unwrap_or_default();
                let count = |name: &str| told[name].as_u64().unwrap_or(0);
                counts = PoolCounts {
                    free: count("free"),
                    held: count("held"),
                    cooling: count("cooling"),
                };
                if counts.free == TOKENS as u64 {
                    return counts;
                }
            }
            if Instant::now() > until {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Each token that is not listed as free at the end.
    async fn missing(&self) -> Vec<String> {
        let mut free = BTreeSet::new();
        let mut cursor = String::new();
        loop {
            let base = &self.world.bases[0];
            let url = format!("{base}/v1/pools/{POOL}/tokens?state=free&limit=1000{cursor}");
            let Ok(answer) = self.world.http.get(url).send().await else {
                break;
            };
            let page = answer.json::<Value>().await.unwrap_or_default();
            let tokens = page["tokens"].as_array().cloned().unwrap_or_default();
            free.extend(
                tokens
                    .iter()
                    .filter_map(|t| Some(t["token"].as_str()?.to_owned())),
            );
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let all = (0..TOKENS).map(|n| format!("seat-{n}"));
        let gone = all.filter(|seat| !free.contains(seat));
        gone.map(|seat| format!("not free at the end: {seat}"))
            .collect()
    }

    /// Waits until a replica is ready again.
    pub async fn ready(&self, n: usize) {
        process::ready(&self.world.http, self.ports[n]).await;
    }
}

/// Waits until a single Redis answers.
pub async fn up(redis: &OwnRedis) {
    eventually("Redis answers", async || {
        redis.command(&["PING"]).await.is_ok()
    })
    .await;
}
