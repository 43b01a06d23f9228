//! What every test stands on: a real Redis, and a data set of its own for each test.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fred::prelude::*;
use fred::types::Value;
use tokend::metrics::Metrics;
use tokend::store::{AssignRequest, Durability, GenerateRequest, NewTokens, Store, StoreConfig};
use tokend::token::{
    AssignOutcome, FlowsLimits, GenerateOutcome, Grant, Holder, IdempotencyKey, Policy,
    PolicyPatch, PoolName, TokenValue,
};
use tokio::sync::OnceCell;

/// Partitions of a test's data set: two, so that both "same partition" and "another" happen.
pub const PARTITIONS: u32 = 2;
/// Longest that a test waits for a condition. Far beyond what is expected: it is no timing assertion.
const PATIENCE: Duration = Duration::from_secs(20);

static NAMESPACE: AtomicU32 = AtomicU32::new(0);

/// Says so, past the test harness's capture, when a test can't run here.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A redis-server of our own on a free port, which ends with this process: its shell waits for our end
/// of a pipe to close.
pub struct OwnRedis {
    pub url: String,
    pub port: u16,
    pub dir: PathBuf,
    shell: Child,
}

impl OwnRedis {
    /// `args` come behind the defaults: no persistence, no eviction.
    pub async fn start(args: &[&str]) -> Option<Self> {
        let found = Command::new("redis-server").arg("--version").output();
        found.ok()?;
        let port = free_port();
        let dir = std::env::temp_dir().join(format!("tokend-it-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let redis = Self {
            url: format!("redis://127.0.0.1:{port}"),
            port,
            shell: run_redis(port, &dir, args),
            dir,
        };
        redis.wait_until_up().await;
        Some(redis)
    }

    pub async fn wait_until_up(&self) {
        eventually("redis-server answers", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_ok()
        })
        .await;
    }

    /// The server's process id, as it says itself.
    pub async fn pid(&self) -> u32 {
        let file = self.dir.join("redis.pid");
        let read = || std::fs::read_to_string(&file).ok()?.trim().parse().ok();
        // It listens a moment before it writes the file.
        eventually("redis-server tells its pid", async || read().is_some()).await;
        read().expect("just read")
    }

    /// kill -9, and wait until it is gone.
    pub async fn kill(&mut self) {
        let pid = self.pid().await;
        signal(pid, "KILL");
        eventually("redis-server is dead", async || {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
                || std::fs::read_to_string(format!("/proc/{pid}/stat"))
                    .is_ok_and(|stat| stat.contains(") Z "))
        })
        .await;
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        let _ = std::fs::remove_file(self.dir.join("redis.pid"));
    }

    /// Starts it again on the same port and directory.
    pub async fn restart(&mut self, args: &[&str]) {
        self.shell = run_redis(self.port, &self.dir, args);
        self.wait_until_up().await;
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Its shell ends it when our end of the pipe closes, which it does however we end, and removes what it left.
fn run_redis(port: u16, dir: &std::path::Path, args: &[&str]) -> Child {
    let script = r#"redis-server "$@" & pid=$!; read -r _; kill -9 $pid; wait $pid; rm -rf "$0""#;
    Command::new("sh")
        .args(["-c", script])
        .arg(dir)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--dir", &dir.to_string_lossy(), "--pidfile"])
        .arg(dir.join("redis.pid"))
        .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}

/// Sends a signal to a process that a test started.
pub fn signal(pid: u32, name: &str) {
    // The shell's own kill: a small Debian has no program of that name.
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status();
    assert!(
        sent.is_ok_and(|status| status.success()),
        "kill -{name} {pid}"
    );
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Waits for a condition, checking often, and fails the test if it never comes.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Where tests find Redis: the `REDIS_URL` given, else a local redis-server, else a container.
pub async fn redis_url() -> &'static str {
    static URL: OnceCell<String> = OnceCell::const_new();
    URL.get_or_init(|| async {
        if let Ok(url) = std::env::var("REDIS_URL") {
            return url;
        }
        if let Some(own) = OwnRedis::start(&[]).await {
            let url = own.url.clone();
            // It lives as long as this process.
            std::mem::forget(own);
            return url;
        }
        container_url().await
    })
    .await
}

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

impl Fixture {
    /// A new data set on the shared Redis.
    pub async fn new() -> Self {
        Self::on(redis_url().await).await
    }

    pub async fn on(url: &str) -> Self {
        Self::with(StoreConfig {
            url: url.to_owned(),
            key_prefix: new_namespace(),
            partitions: PARTITIONS,
            default_policy: Policy::FOR_DEFAULT_POOL,
            flows: FlowsLimits::DEFAULT,
            durability: Durability::Memory,
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
            tokens: NewTokens::Import(tokens.iter().map(|value| token(value)).collect()),
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
        let mut keys: Vec<String> = self
            .redis
            .scan_buffered(pattern.to_owned(), Some(1_000), None)
            .map_ok(|key| key.into_string().unwrap_or_default())
            .try_collect()
            .await
            .expect("scan");
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
