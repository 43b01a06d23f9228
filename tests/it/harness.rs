//! What every test stands on: a real Redis, and a data set of its own for each test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fred::prelude::*;
use fred::types::{Key, Value};
use tokend::metrics::Metrics;
use tokend::store::{AssignRequest, Durability, GenerateRequest, NewTokens, Store, StoreConfig};
use tokend::token::{
    AssignOutcome, FlowsLimits, GenerateOutcome, Grant, Holder, IdempotencyKey, NewToken, Policy,
    PolicyPatch, PoolName, TokenValue,
};
use tokio::sync::OnceCell;

pub use crate::support::*;

/// Partitions of a test's data set: two, so that both "same partition" and "another" happen.
pub const PARTITIONS: u32 = 2;

static NAMESPACE: AtomicU32 = AtomicU32::new(0);

/// Where tests find Redis: the `REDIS_URL` given, else a local redis-server, else a container.
pub async fn redis_url() -> &'static str {
    static URL: OnceCell<String> = OnceCell::const_new();
    URL.get_or_init(|| async {
        if let Ok(url) = std::env::var("REDIS_URL") {
            return url;
        }
        // What is forgotten lives as long as this process.
        match std::env::var(TOPOLOGY_VARIABLE).as_deref() {
            Ok("cluster") => {
                let cluster = Cluster::start(&[]).await.expect("a redis-server");
                let url = cluster.url();
                std::mem::forget(cluster);
                return url;
            }
            Ok("single") | Err(_) => {}
            Ok(other) => panic!("{TOPOLOGY_VARIABLE}: no topology {other}"),
        }
        if let Some(own) = OwnRedis::start(&[]).await {
            let url = own.url.clone();
            std::mem::forget(own);
            return url;
        }
        container_url().await
    })
    .await
}

/// On what the shared Redis runs: `single` or `cluster`.
const TOPOLOGY_VARIABLE: &str = "TOKEND_TEST_TOPOLOGY";

/// Longest that a container of ours lives: nothing ends it with this process, so it ends itself.
const CONTAINER_S_MAX: &str = "1800";

async fn container_url() -> String {
    use testcontainers::core::{IntoContainerPort, WaitFor};
    use testcontainers::runners::AsyncRunner;
    use testcontainers::{GenericImage, ImageExt};
    let redis = ["redis-server", "--protected-mode", "no", "--save", ""];
    let container = GenericImage::new("redis", "7")
        .with_exposed_port(6379.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
        .with_cmd(["timeout", CONTAINER_S_MAX].into_iter().chain(redis))
        .with_host_config_modifier(|host| host.auto_remove = Some(true))
        .start()
        .await
        .expect("tests need Redis: set REDIS_URL, install redis-server, or start a Docker engine");
    let port = container.get_host_port_ipv4(6379).await.expect("a port");
    std::mem::forget(container); // it must outlive this call
    format!("redis://127.0.0.1:{port}")
}

/// One test's data set, and a replica on it.
pub struct Fixture {
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub config: StoreConfig,
    pub redis: Client,
}

pub fn pool(name: &str) -> PoolName {
    PoolName::parse(name).expect("a pool's name")
}

pub fn token(value: &str) -> TokenValue {
    TokenValue::parse(value).expect("a token")
}

pub fn new_token(value: &str) -> NewToken {
    NewToken::parse(value).expect("a new token")
}

pub fn holder(value: &str) -> Option<Holder> {
    Some(Holder::parse(value).expect("a holder"))
}

pub fn key(value: &str) -> Option<IdempotencyKey> {
    Some(IdempotencyKey::parse(value).expect("a key"))
}

pub fn any() -> AssignRequest {
    AssignRequest::default()
}

/// A key prefix that no other test of any run has.
pub fn new_namespace() -> String {
    let number = NAMESPACE.fetch_add(1, Ordering::Relaxed);
    format!("it-{}-{number}", std::process::id())
}

/// A data set of its own on that Redis.
pub fn config_on(url: &str) -> StoreConfig {
    StoreConfig {
        url: url.to_owned(),
        key_prefix: new_namespace(),
        partitions: PARTITIONS,
        default_policy: Policy::FOR_DEFAULT_POOL,
        flows: FlowsLimits::DEFAULT,
        durability: Durability::Memory,
    }
}

impl Fixture {
    /// A new data set on the shared Redis.
    pub async fn new() -> Self {
        Self::on(redis_url().await).await
    }

    pub async fn on(url: &str) -> Self {
        Self::of_partitions(url, PARTITIONS).await
    }

    /// A new data set of so many partitions.
    pub async fn of_partitions(url: &str, partitions: u32) -> Self {
        Self::with(StoreConfig {
            partitions,
            ..config_on(url)
        })
        .await
    }

    pub async fn with(config: StoreConfig) -> Self {
        let metrics = Arc::new(Metrics::new());
        let store = Store::start(config.clone(), metrics.clone())
            .await
            .expect("the store starts");
        let redis = Builder::from_config(Config::from_url(&config.url).expect("a URL"))
            .with_performance_config(|performance| {
                performance.default_command_timeout = Duration::from_secs(60);
            })
            // Tests that kill their Redis go on asking it.
            .set_policy(ReconnectPolicy::new_constant(0, 50))
            .build()
            .expect("a client");
        redis.init().await.expect("Redis answers");
        Self {
            store,
            metrics,
            config,
            redis,
        }
    }

    /// Another replica on the same data set.
    pub async fn replica(&self) -> Self {
        Self::with(self.config.clone()).await
    }

    /// Makes a pool.
    pub async fn pool(&self, name: &str, patch: PolicyPatch) -> PoolName {
        let pool = pool(name);
        self.store.put_pool(&pool, patch).await.expect("a pool");
        pool
    }

    /// A pool with these tokens in it.
    pub async fn filled(&self, name: &str, patch: PolicyPatch, tokens: &[&str]) -> PoolName {
        let pool = self.pool(name, patch).await;
        self.import(&pool, tokens).await;
        pool
    }

    pub async fn import(&self, pool: &PoolName, tokens: &[&str]) -> GenerateOutcome {
        let request = GenerateRequest {
            tokens: NewTokens::Import(tokens.iter().map(|value| new_token(value)).collect()),
            key: None,
        };
        self.store.generate(pool, request).await.expect("generate")
    }

    pub async fn generate(&self, pool: &PoolName, count: usize) -> Vec<TokenValue> {
        let request = GenerateRequest {
            tokens: NewTokens::Generate(count),
            key: None,
        };
        match self.store.generate(pool, request).await.expect("generate") {
            GenerateOutcome::Added { tokens, .. } => tokens,
            other => panic!("not generated: {other:?}"),
        }
    }

    /// Assigns, and takes the grant.
    pub async fn assign(&self, pool: &PoolName, request: AssignRequest) -> AssignOutcome {
        match self.store.assign(pool, request).await.expect("assign") {
            AssignOutcome::Granted(offer) => AssignOutcome::Granted(offer.accept()),
            AssignOutcome::Empty { retry_after_ms } => AssignOutcome::Empty { retry_after_ms },
            AssignOutcome::NotFree {
                state,
                retry_after_ms,
            } => AssignOutcome::NotFree {
                state,
                retry_after_ms,
            },
            AssignOutcome::TokenNotFound => AssignOutcome::TokenNotFound,
            AssignOutcome::LeaseLost => AssignOutcome::LeaseLost,
            AssignOutcome::IdempotencyMismatch => AssignOutcome::IdempotencyMismatch,
            AssignOutcome::PoolNotFound => AssignOutcome::PoolNotFound,
        }
    }

    pub async fn grant(&self, pool: &PoolName) -> Grant {
        match self.assign(pool, any()).await {
            AssignOutcome::Granted(grant) => grant,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// `free`, `held`, `cooling`.
    pub async fn counts(&self, pool: &PoolName) -> (u64, u64, u64) {
        let view = self.store.show_pool(pool).await.expect("show");
        let counts = view.expect("the pool is there").counts;
        (counts.free, counts.held, counts.cooling)
    }

    /// Lets `by` pass for one pool: its deadlines, the wheel and remembered idempotency keys move into the
    /// past by that much, rounded to whole ticks. The sweeper then finds them as if time had gone by.
    pub async fn pass(&self, pool: &PoolName, by: Duration) {
        for prefix in self.prefixes().await {
            let source = shift_source();
            let args = vec![pool.as_str().to_owned(), by.as_millis().to_string()];
            let keys = vec![prefix.clone(), format!("{prefix}:guard")];
            let _: Value = self.redis.eval(source, keys, args).await.expect("shift");
        }
    }

    /// The partitions' key prefixes that have keys.
    pub async fn prefixes(&self) -> Vec<String> {
        let pattern = format!("{}:1:{{*}}:pool:*", self.config.key_prefix);
        let keys: Vec<String> = self.keys(&pattern).await;
        let mut prefixes: Vec<_> = keys
            .iter()
            .filter_map(|key| Some(key.split_once("}:")?.0.to_owned() + "}"))
            .collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }

    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        use futures_util::TryStreamExt;
        const AT_ONCE: Option<u32> = Some(1_000);
        let found: Vec<Key> = if self.redis.is_clustered() {
            let keys = self.redis.scan_cluster_buffered(pattern, AT_ONCE, None);
            keys.try_collect().await.expect("scan")
        } else {
            let keys = self.redis.scan_buffered(pattern, AT_ONCE, None);
            keys.try_collect().await.expect("scan")
        };
        let text = |key: Key| key.into_string().unwrap_or_default();
        let mut keys: Vec<String> = found.into_iter().map(text).collect();
        keys.sort();
        keys.dedup();
        keys
    }
}

/// The test-only script, behind the same prelude as the others.
fn shift_source() -> String {
    let prelude = include_str!("../../lua/prelude.lua");
    let shift = include_str!("shift.lua");
    format!("#!lua\n{prelude}\n{shift}")
}
