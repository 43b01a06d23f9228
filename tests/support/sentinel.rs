//! One primary, two replicas, and three Sentinels that watch them.

use super::server::{OwnRedis, program};
use super::{eventually, eventually_some};

const SENTINELS: usize = 3;
const SERVERS: usize = 3;
/// What the Sentinels call the primary, whoever it is.
const NAME: &str = "tokend";
/// A server that has not answered for this long is down.
const DOWN_MS: u32 = 1_000;
/// A failover that has not ended after this long is tried again.
const FAILOVER_MS: u32 = 5_000;
/// A primary without a disk need not wait for more replicas before it sends its data.
const PROMPT_SYNC: &[&str] = &["--repl-diskless-sync-delay", "0"];

pub struct Sentinel {
    /// The primary first, as long as nobody kills it.
    pub servers: Vec<OwnRedis>,
    pub sentinels: Vec<OwnRedis>,
}

impl Sentinel {
    /// Whole and in sync. `args` go to each server. None if there is no redis-server here.
    pub async fn start(args: &[&str]) -> Option<Self> {
        Self::start_with_replicas_under(&[], args).await
    }

    /// The same; the replicas run under another program, such as one that makes their clocks wrong.
    pub async fn start_with_replicas_under(wrapper: &[&str], args: &[&str]) -> Option<Self> {
        let program = program()?;
        let mut servers = vec![OwnRedis::start(&[PROMPT_SYNC, args].concat()).await?];
        let primary = servers[0].port.to_string();
        while servers.len() < SERVERS {
            let of = format!("127.0.0.1 {primary}");
            let follow = ["--replicaof", &of];
            let args = [PROMPT_SYNC, &follow, args].concat();
            servers.push(OwnRedis::start_under(wrapper, &args).await?);
        }
        let config = format!(
            "sentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {NAME} {DOWN_MS}\n\
             sentinel failover-timeout {NAME} {FAILOVER_MS}\n\
             sentinel parallel-syncs {NAME} {SERVERS}\n"
        );
        let mut sentinels = Vec::new();
        while sentinels.len() < SENTINELS {
            sentinels.push(OwnRedis::start_sentinel(&program, &config).await);
        }
        let started = Self { servers, sentinels };
        started.whole().await;
        Some(started)
    }

    pub fn url(&self) -> String {
        let mut url = format!(
            "redis-sentinel://127.0.0.1:{}?sentinelServiceName={NAME}",
            self.sentinels[0].port
        );
        for sentinel in &self.sentinels[1..] {
            url += &format!("&node=127.0.0.1:{}", sentinel.port);
        }
        url
    }

    /// Who is primary, once most Sentinels say the same and it says so itself.
    pub async fn primary(&self) -> usize {
        eventually_some("there is a primary", async || self.primary_now().await).await
    }

    async fn primary_now(&self) -> Option<usize> {
        let mut votes = vec![0; self.servers.len()];
        for sentinel in &self.sentinels {
            let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
            let Ok(told) = sentinel.command(&ask).await else {
                continue;
            };
            let port = told.texts().get(1)?.parse::<u16>().ok()?;
            votes[self.servers.iter().position(|it| it.port == port)?] += 1;
        }
        let chosen = votes.iter().position(|&it| it > SENTINELS / 2)?;
        let role = self.servers[chosen].info("replication", "role").await;
        (role? == "master").then_some(chosen)
    }

    /// Waits until another server than this one is primary.
    pub async fn failed_over(&self, from: usize) -> usize {
        eventually_some("another server is primary", async || {
            self.primary_now().await.filter(|&now| now != from)
        })
        .await
    }

    /// kill -9. Says whom.
    pub async fn kill_primary(&mut self) -> usize {
        let primary = self.primary().await;
        self.servers[primary].kill().await;
        primary
    }

    /// Freezes the primary; its connections stay open. Says whom.
    pub async fn pause_primary(&self) -> usize {
        let primary = self.primary().await;
        self.servers[primary].pause().await;
        primary
    }

    /// Waits until every Sentinel knows all the others, and every server but the primary follows it, in sync.
    pub async fn whole(&self) {
        eventually("the Sentinels watch all that is there", async || {
            self.is_whole().await.is_some()
        })
        .await;
    }

    async fn is_whole(&self) -> Option<()> {
        for sentinel in &self.sentinels {
            let told = sentinel.command(&["SENTINEL", "MASTER", NAME]).await.ok()?;
            let fields = told.texts();
            let field = |name: &str| {
                let at = fields.iter().position(|it| it == name)?;
                fields.get(at + 1)?.parse::<usize>().ok()
            };
            (field("num-other-sentinels")? == SENTINELS - 1).then_some(())?;
            (field("num-slaves")? == SERVERS - 1).then_some(())?;
            sentinel
                .command(&["SENTINEL", "CKQUORUM", NAME])
                .await
                .ok()?;
        }
        let primary = &self.servers[self.primary_now().await?];
        let followers = primary.info("replication", "connected_slaves").await?;
        (followers == (SERVERS - 1).to_string()).then_some(())?;
        for server in &self.servers {
            if server.port != primary.port {
                in_sync(server, primary.port).await?;
            }
        }
        Some(())
    }
}

/// Whether a replica follows the server on this port, and has all its data.
pub(super) async fn in_sync(replica: &OwnRedis, primary: u16) -> Option<()> {
    let told = async |field| replica.info("replication", field).await;
    let follows = told("master_port").await? == primary.to_string();
    (follows && told("master_link_status").await? == "up").then_some(())
}
