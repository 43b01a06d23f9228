//! What one primary tells about itself. What it may not tell, or what no answer came to, is `None`.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, ConfigInterface};
use fred::types::Builder;
use fred::types::InfoKind;
use fred::types::config::ServerConfig;
use futures_util::future::join_all;

/// Longest that a replica may take to tell its time, connecting included.
const REPLICA_MS_MAX: u64 = 1_000;
/// Most replicas that are asked.
const REPLICAS_MAX: usize = 10;

/// What is known of one primary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub version: Option<String>,
    /// `master` or `slave`.
    pub role: Option<String>,
    /// Whether it is a node of a Cluster.
    pub clustered: bool,
    /// `cluster-require-full-coverage`.
    pub full_coverage: Option<String>,
    /// Bytes.
    pub used_memory: Option<u64>,
    /// Bytes; 0: no limit.
    pub maxmemory: Option<u64>,
    pub maxmemory_policy: Option<String>,
    pub append_only: Option<bool>,
    pub append_fsync: Option<String>,
    pub connected_replicas: Option<u64>,
    pub min_replicas_to_write: Option<u64>,
    /// The flags of `notify-keyspace-events`.
    pub notify: Option<String>,
    /// Between which two differences, ms, its clock minus ours lies.
    pub clock_bounds_ms: Option<(i64, i64)>,
    /// Host and port of each replica that was not asked yet.
    pub replicas: Vec<(String, u16)>,
    pub replica_clocks: Vec<ReplicaClock>,
}

/// The clock of one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaClock {
    /// `host:port`.
    pub name: String,
    /// The replica's minus the primary's, as above.
    pub bounds_ms: Option<(i64, i64)>,
}

/// Reads everything but its replicas' clocks. Only INFO must be allowed.
pub(super) async fn read(primary: &Client) -> Result<Facts, Error> {
    let info: String = primary.info(Some(InfoKind::Default)).await?;
    let mut facts = Facts::from_info(&info);
    facts.append_fsync = setting(primary, "appendfsync").await;
    facts.notify = setting(primary, "notify-keyspace-events").await;
    let required = setting(primary, "min-replicas-to-write").await;
    facts.min_replicas_to_write = required.and_then(|number| number.parse().ok());
    if facts.clustered {
        facts.full_coverage = setting(primary, "cluster-require-full-coverage").await;
    }
    facts.clock_bounds_ms = clock_bounds(primary).await;
    Ok(facts)
}

/// Asks its replicas for their time, on connections of their own.
pub(super) async fn ask_replicas(primary: &Client, facts: &mut Facts) {
    let bounds = facts.clock_bounds_ms;
    let replicas = std::mem::take(&mut facts.replicas).into_iter();
    let clocks = replicas
        .take(REPLICAS_MAX)
        .map(|(host, port)| replica_clock(primary, host, port, bounds));
    facts.replica_clocks = join_all(clocks).await;
}

async fn setting(client: &Client, name: &str) -> Option<String> {
    let told: Result<HashMap<String, String>, _> = client.config_get(name).await;
    told.ok()?.remove(name)
}

impl Facts {
    pub fn from_info(info: &str) -> Self {
        let text = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find_map(|(field, value)| (field == name).then(|| value.trim().to_owned()))
        };
        let number = |name| text(name)?.parse().ok();
        Self {
            version: text("redis_version"),
            role: text("role"),
            clustered: text("cluster_enabled").is_some_and(|on| on == "1"),
            used_memory: number("used_memory"),
            maxmemory: number("maxmemory"),
            maxmemory_policy: text("maxmemory_policy"),
            append_only: text("aof_enabled").map(|on| on == "1"),
            connected_replicas: number("connected_slaves"),
            replicas: replicas(info),
            ..Self::default()
        }
    }
}

/// Its replicas: `slave0:ip=10.0.0.2,port=6379,state=online,…`.
fn replicas(info: &str) -> Vec<(String, u16)> {
    let about = |line: &str| {
        let (name, about) = line.split_once(':')?;
        let number = name.strip_prefix("slave")?;
        number.parse::<u32>().ok()?;
        let field = |field: &str| {
            let mut fields = about.split(',').filter_map(|it| it.split_once('='));
            fields.find_map(|(name, value)| (name == field).then(|| value.to_owned()))
        };
        Some((field("ip")?, field("port")?.parse().ok()?))
    };
    info.lines().filter_map(about).collect()
}

fn now_ms() -> Option<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(now.as_millis()).ok()
}

/// Its clock was read at some moment between asking and hearing.
async fn clock_bounds(client: &Client) -> Option<(i64, i64)> {
    let asked = now_ms()?;
    let time: Vec<i64> = client
        .custom(fred::cmd!("TIME"), Vec::<String>::new())
        .await
        .ok()?;
    let heard = now_ms()?;
    let &[seconds, us] = time.as_slice() else {
        return None;
    };
    let theirs = seconds * 1_000 + us / 1_000;
    // Each of the three is cut to whole milliseconds.
    Some((theirs - heard - 1, theirs - asked + 1))
}

/// Connects, asks for the time, and leaves.
async fn ask(replica: &Client) -> Option<(i64, i64)> {
    let connection = replica.connect();
    let asking = async {
        replica.wait_for_connect().await.ok()?;
        clock_bounds(replica).await
    };
    let limit = Duration::from_millis(REPLICA_MS_MAX);
    let bounds = tokio::time::timeout(limit, asking).await.ok().flatten();
    let _ = tokio::time::timeout(limit, replica.quit()).await;
    // It may still be connecting.
    connection.abort();
    bounds
}

async fn replica_clock(
    primary: &Client,
    host: String,
    port: u16,
    primarys: Option<(i64, i64)>,
) -> ReplicaClock {
    let name = format!("{host}:{port}");
    let mut config = primary.client_config();
    config.server = ServerConfig::new_centralized(host, port);
    config.fail_fast = true;
    let bounds = match Builder::from_config(config).build() {
        Ok(replica) => ask(&replica).await,
        Err(_) => None,
    };
    let bounds_ms = bounds.zip(primarys);
    ReplicaClock {
        name,
        bounds_ms: bounds_ms.map(|(its, primarys)| (its.0 - primarys.1, its.1 - primarys.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nmaxmemory:0\r\n\
        maxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n\
        # Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
        slave0:ip=10.0.0.2,port=6380,state=online,offset=1,lag=0\r\n\
        slave1:ip=fd00::2,port=6379,state=online,offset=1,lag=0\r\nslave_expires_tracked_keys:0\r\n";

    #[test]
    fn info_is_read() {
        let facts = Facts::from_info(INFO);
        assert_eq!(facts.version.as_deref(), Some("7.0.15"));
        assert_eq!(facts.role.as_deref(), Some("master"));
        assert_eq!(
            (facts.maxmemory, facts.connected_replicas),
            (Some(0), Some(2))
        );
        assert_eq!(facts.maxmemory_policy.as_deref(), Some("noeviction"));
        assert_eq!(facts.append_only, Some(true));
        assert_eq!(Facts::from_info("nonsense"), Facts::default());
        let found = replicas(INFO);
        assert_eq!(
            found,
            [("10.0.0.2".to_owned(), 6380), ("fd00::2".to_owned(), 6379)]
        );
    }
}
