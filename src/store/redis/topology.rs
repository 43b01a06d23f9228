//! Which primary serves which slots: one for all, or what Sentinels or the nodes of a cluster say.
//!
//! Asked once a second of one that knows, and of all that can be reached, at once and again and again, while
//! anything is wrong. Answers carry the epoch in which they became true; the newest wins, so a node that was cut
//! off and still believes the old order leads nobody astray.

use std::collections::BTreeSet;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::Value;
use fred::types::config::{Config, Server, ServerConfig};
use futures_util::future::join_all;
use tracing::debug;

use super::in_words;
use super::node::{builder, quit};
use crate::store::keys::SLOTS;

/// Longest that one that is asked may take.
const ASK_MS_MAX: u64 = 500;

/// How a data set's primaries are found.
pub(super) enum Deployment {
    Single,
    Sentinel { clients: Vec<Client>, name: String },
    Cluster { seeds: BTreeSet<Server> },
}

/// Slots, both ends included, and their primary.
pub(super) type Range = (u16, u16, Server);

/// What one that was asked knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Whether it can speak for the rest: a cluster's node that can't reach most others can not.
    pub sound: bool,
    /// In which epoch this became true.
    pub epoch: u64,
    pub ranges: Vec<Range>,
    /// Others to ask when those known are gone.
    pub others: Vec<Server>,
}

/// A configuration like this one, for one server.
pub(super) fn config_for(base: &Config, server: Server) -> Config {
    Config {
        server: ServerConfig::Centralized { server },
        fail_fast: false,
        ..base.clone()
    }
}

impl Deployment {
    /// What the URL says; clients for Sentinels are at rest.
    pub fn of(config: &Config) -> Result<Self, Error> {
        Ok(match &config.server {
            ServerConfig::Centralized { .. } | ServerConfig::Unix { .. } => Self::Single,
            ServerConfig::Clustered { hosts, .. } => Self::Cluster {
                seeds: hosts.iter().cloned().collect(),
            },
            ServerConfig::Sentinel {
                hosts,
                service_name,
                username,
                password,
            } => {
                let clients = hosts.iter().map(|server| {
                    let mut config = config_for(config, server.clone());
                    // Sentinels have users of their own, and no databases.
                    config.username.clone_from(username);
                    config.password.clone_from(password);
                    config.database = None;
                    builder(config).build()
                });
                Self::Sentinel {
                    clients: clients.collect::<Result<_, _>>()?,
                    name: service_name.clone(),
                }
            }
        })
    }

    /// What those know that can be asked; `nodes` are the clients of the primaries that are known.
    pub async fn ask(&self, config: &Config, nodes: &[Client]) -> Vec<Asked> {
        match self {
            Self::Single => Vec::new(),
            Self::Sentinel { clients, name } => {
                let asked = clients
                    .iter()
                    .map(|client| within(client, ask_sentinel(client, name)));
                join_all(asked).await
            }
            Self::Cluster { seeds } => {
                let tls = config.tls.is_some();
                let asked = nodes
                    .iter()
                    .map(|client| within(client, ask_cluster(client, tls)));
                let told = join_all(asked).await;
                if told.iter().flatten().any(|view| view.sound) {
                    return told;
                }
                let asked = seeds.iter().map(|seed| ask_seed(config, seed, tls));
                told.into_iter().chain(join_all(asked).await).collect()
            }
        }
    }

    /// Remembers who else may be asked.
    pub fn remember(&mut self, view: &View) {
        if let Self::Cluster { seeds } = self {
            seeds.extend(view.others.iter().cloned());
            // Bounded: a cluster that moves from address to address must not fill this.
            while seeds.len() > SEEDS_MAX {
                seeds.pop_first();
            }
        }
    }
}

/// What one knows, or why it could not say.
pub(super) type Asked = Result<View, String>;

/// Most servers remembered to ask for the topology: as many as a large cluster has.
const SEEDS_MAX: usize = 1_000;

/// The newest of several views.
pub(super) fn newest(views: Vec<View>) -> Option<View> {
    views
        .into_iter()
        .filter(|view| !view.ranges.is_empty())
        .max_by_key(|view| (view.sound, view.epoch))
}

async fn within(whom: &Client, asked: impl Future<Output = Result<Option<View>, Error>>) -> Asked {
    let limit = Duration::from_millis(ASK_MS_MAX);
    let why = match tokio::time::timeout(limit, asked).await {
        Ok(Ok(Some(view))) => return Ok(view),
        Ok(Ok(None)) => "an answer of another form".to_owned(),
        Ok(Err(error)) => in_words(&error),
        Err(_) => "no answer in time".to_owned(),
    };
    let server = whom.client_config().server.hosts().into_iter().next();
    let server = server.map_or_else(String::new, |server| server.to_string());
    debug!(server, why, "asking for the topology");
    Err(format!("{server}: {why}"))
}

/// A connection for one question: where no primary that is known can be asked.
async fn ask_seed(config: &Config, seed: &Server, tls: bool) -> Asked {
    let mut config = config_for(config, seed.clone());
    config.fail_fast = true;
    let client = builder(config).build().map_err(|error| in_words(&error))?;
    let view = within(&client, async {
        let connection = client.connect();
        client.wait_for_connect().await?;
        let view = ask_cluster(&client, tls).await;
        drop(connection);
        view
    })
    .await;
    quit(&client).await;
    view
}

async fn ask_sentinel(client: &Client, name: &str) -> Result<Option<View>, Error> {
    if !client.is_connected() {
        return Err(Error::new(ErrorKind::IO, "not connected"));
    }
    let master: Value = client
        .custom(fred::cmd!("SENTINEL"), vec!["MASTER", name])
        .await?;
    let address: Value = client
        .custom(
            fred::cmd!("SENTINEL"),
            vec!["GET-MASTER-ADDR-BY-NAME", name],
        )
        .await?;
    Ok(parse_sentinel(master, address))
}

async fn ask_cluster(client: &Client, tls: bool) -> Result<Option<View>, Error> {
    if !client.is_connected() {
        return Err(Error::new(ErrorKind::IO, "not connected"));
    }
    let info: String = client.custom(fred::cmd!("CLUSTER"), vec!["INFO"]).await?;
    let slots: Value = client.custom(fred::cmd!("CLUSTER"), vec!["SLOTS"]).await?;
    // A node that does not know its own name leaves it out: it is the one that was asked.
    let asked = client.client_config().server.hosts().into_iter().next();
    Ok(parse_cluster(&info, slots, asked.as_ref(), tls))
}

fn text(value: &Value) -> Option<String> {
    value.as_string().filter(|text| !text.is_empty())
}

/// `SENTINEL MASTER`: names and values in turn; `GET-MASTER-ADDR-BY-NAME`: host and port. During a failover the
/// second names the replica that has been promoted, some time before the first and its epoch do.
fn parse_sentinel(master: Value, address: Value) -> Option<View> {
    let flat = master.into_array();
    let field = |name: &str| {
        let mut pairs = flat.chunks_exact(2);
        pairs.find_map(|pair| (pair[0].as_str()? == name).then(|| text(&pair[1]))?)
    };
    let before = Server::new(field("ip")?, field("port")?.parse().ok()?);
    let epoch: u64 = field("config-epoch")?.parse().ok()?;
    let address = address.into_array();
    let port = address.get(1).and_then(text);
    let server = Server::new(address.first().and_then(text)?, port?.parse().ok()?);
    Some(View {
        sound: true,
        epoch: epoch + u64::from(server != before),
        ranges: vec![(0, SLOTS - 1, server)],
        others: Vec::new(),
    })
}

/// `CLUSTER INFO` and `CLUSTER SLOTS`: from, to, primary, replicas…; each of these a host, a port, an id and
/// metadata, where a host name may be that a certificate names.
fn parse_cluster(info: &str, slots: Value, asked: Option<&Server>, tls: bool) -> Option<View> {
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(key, value)| (key == name).then(|| value.trim().to_owned()))
    };
    let server = |value: &Value| {
        let parts = value.clone().into_array();
        let port = u16::try_from(parts.get(1)?.as_u64()?).ok()?;
        let named = parts.get(3).and_then(|metadata| {
            let flat = metadata.clone().into_array();
            let mut pairs = flat.chunks_exact(2);
            pairs.find_map(|pair| (pair[0].as_str()? == "hostname").then(|| text(&pair[1]))?)
        });
        let told = parts.first().and_then(text);
        let host = named.filter(|_| tls).or(told);
        let host = host.or_else(|| asked.map(|server| server.host.to_string()))?;
        Some(Server::new(host, port))
    };
    let (mut ranges, mut others) = (Vec::new(), Vec::new());
    for range in slots.into_array() {
        let parts = range.into_array();
        let bound = |value: Option<&Value>| u16::try_from(value?.as_u64()?).ok();
        let (from, to) = (bound(parts.first())?, bound(parts.get(1))?);
        if from > to || to >= SLOTS {
            return None;
        }
        let mut servers = parts.iter().skip(2).filter_map(server);
        ranges.push((from, to, servers.next()?));
        others.extend(servers);
    }
    others.extend(ranges.iter().map(|(_, _, primary)| primary.clone()));
    Some(View {
        sound: field("cluster_state")? == "ok",
        epoch: field("cluster_current_epoch")?.parse().ok()?,
        ranges,
        others,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list<T: Into<Value>>(values: Vec<T>) -> Value {
        Value::Array(values.into_iter().map(Into::into).collect())
    }

    fn node(host: Value, port: i64, metadata: Vec<&str>) -> Value {
        list(vec![host, port.into(), "id".into(), list(metadata)])
    }

    const INFO: &str =
        "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:7\r\n";

    #[test]
    fn a_cluster_names_its_primaries_and_their_replicas() {
        let slots = list(vec![
            list(vec![
                Value::from(0),
                8191.into(),
                node("10.0.0.1".into(), 7000, vec!["hostname", "a.example"]),
                node("10.0.0.2".into(), 7001, vec![]),
            ]),
            list(vec![
                Value::from(8192),
                16383.into(),
                node(Value::Null, 7002, vec![]),
            ]),
        ]);
        let asked = Server::new("10.0.0.9", 7002);
        let view = |tls| parse_cluster(INFO, slots.clone(), Some(&asked), tls).expect("a view");
        let plain = view(false);
        assert!(plain.sound);
        assert_eq!(plain.epoch, 7);
        let ranges = |first: &str| {
            vec![
                (0, 8191, Server::new(first, 7000)),
                // It did not name itself.
                (8192, 16383, Server::new("10.0.0.9", 7002)),
            ]
        };
        assert_eq!(plain.ranges, ranges("10.0.0.1"));
        assert!(plain.others.contains(&Server::new("10.0.0.2", 7001)));
        // A certificate names a host, not an address.
        assert_eq!(view(true).ranges, ranges("a.example"));
    }

    #[test]
    fn a_node_that_is_cut_off_does_not_speak_for_the_rest() {
        let slots = list(vec![list(vec![
            Value::from(0),
            16383.into(),
            node("a".into(), 1, vec![]),
        ])]);
        let view = |info: &str| parse_cluster(info, slots.clone(), None, false);
        let cut_off = view(&INFO.replace("ok", "fail").replace(":7", ":9")).expect("a view");
        assert!(!cut_off.sound);
        let sound = view(INFO).expect("a view");
        let newer = view(&INFO.replace(":7", ":8")).expect("a view");
        let views = vec![sound, cut_off, newer.clone()];
        assert_eq!(newest(views), Some(newer));
        assert_eq!(newest(Vec::new()), None);
    }

    #[test]
    fn what_no_cluster_answers_is_no_view() {
        for slots in [
            list(vec![list(vec![
                Value::from(5),
                3.into(),
                node("a".into(), 1, vec![]),
            ])]),
            list(vec![list(vec![
                Value::from(0),
                16384.into(),
                node("a".into(), 1, vec![]),
            ])]),
            list(vec![list(vec![Value::from(0), 1.into()])]),
            list(vec![list(vec![
                Value::from(0),
                1.into(),
                node("a".into(), 70_000, vec![]),
            ])]),
            list(vec![Value::from(1)]),
        ] {
            assert_eq!(
                parse_cluster(INFO, slots.clone(), None, false),
                None,
                "{slots:?}"
            );
        }
    }

    #[test]
    fn a_sentinel_names_the_primary_and_a_promoted_one_before_its_epoch_says_so() {
        let master = list(vec![
            "name",
            "main",
            "ip",
            "a",
            "port",
            "1",
            "config-epoch",
            "4",
        ]);
        let view = |host: &str| parse_sentinel(master.clone(), list(vec![host, "1"]));
        let settled = view("a").expect("a view");
        assert_eq!(settled.epoch, 4);
        assert_eq!(settled.ranges, vec![(0, 16383, Server::new("a", 1))]);
        let promoted = view("b").expect("a view");
        assert_eq!(
            (promoted.epoch, &promoted.ranges[0].2),
            (5, &Server::new("b", 1))
        );
        assert_eq!(parse_sentinel(Value::Null, Value::Null), None);
    }
}
