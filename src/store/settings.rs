//! Settings that all replicas of a data set must have alike. Each replica says what its own are when it joins the others
//! (`duty.rs`), reads what the others say, and tells by a metric and by the log what differs.
//!
//! A replica never changes its settings, and has another id after each start. So what it says is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use fred::interfaces::HashesInterface;
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::Inner;
use super::redis::end_of;
use crate::token::{Setting, Settings, StoreError};

/// Time between two comparisons. Nothing is sent unless a replica has joined.
const COMPARE: Duration = Duration::from_secs(1);
/// After this long without a difference, the next one is news: longer than the pauses of a replica that crashes again
/// and again.
const FORGET: Duration = Duration::from_mins(10);
/// Most replicas that a line names.
const NAMES_MAX: usize = 3;
/// Most characters of a value that a line shows.
const VALUE_CHARS_MAX: usize = 200;

/// What a replica says of its settings.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// Its name in the others' logs.
    name: String,
    settings: Settings,
    /// The same as JSON; empty where it says nothing.
    text: String,
}

/// The JSON. Members and settings that this version does not know are passed over.
#[derive(Serialize, Deserialize)]
struct Said {
    name: String,
    settings: BTreeMap<String, serde_json::Value>,
}

impl Shared {
    /// The settings of a replica of that name.
    ///
    /// # Panics
    /// Never: texts and lists of texts are JSON.
    #[must_use]
    pub fn new(name: String, settings: Settings) -> Self {
        let json = |setting| serde_json::to_value(setting).expect("JSON");
        let each = settings.iter();
        let said = Said {
            name: name.clone(),
            settings: each.map(|(name, it)| (name.clone(), json(it))).collect(),
        };
        Self {
            text: serde_json::to_string(&said).expect("JSON"),
            name,
            settings,
        }
    }

    /// The same, but for one variable.
    #[must_use]
    pub fn without(self, variable: &str) -> Self {
        let mut settings = self.settings;
        settings.remove(variable);
        Self::new(self.name, settings)
    }

    /// What another one has said. `None`: nothing that this version understands.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let said: Said = serde_json::from_str(text).ok()?;
        let known = said.settings.into_iter();
        let known = known.filter_map(|(name, it)| Some((name, serde_json::from_value(it).ok()?)));
        Some(Self {
            name: said.name,
            settings: known.collect(),
            text: text.to_owned(),
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn agrees(&self, other: &Self, variable: &str) -> bool {
        let both = self
            .settings
            .get(variable)
            .zip(other.settings.get(variable));
        both.is_none_or(|(one, other)| one.agrees(other))
    }
}

/// What a variable is at which replicas, where some disagree with one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference<'a> {
    pub variable: &'a str,
    /// How many disagree.
    pub others: usize,
    /// Each value, and the names of the replicas that have it.
    views: Vec<(&'a Setting, Vec<&'a str>)>,
}

impl Difference<'_> {
    /// Whether it is about a list of keys.
    pub fn is_of_keys(&self) -> bool {
        let mut values = self.views.iter().map(|(value, _)| *value);
        values.any(|value| matches!(value, Setting::Keys(_)))
    }

    /// The values that do not agree with this one.
    fn disagreeing(&self, own: Option<&Setting>) -> BTreeSet<String> {
        let values = self.views.iter().map(|(value, _)| *value);
        values
            .filter(|value| own.is_some_and(|own| !own.agrees(value)))
            .map(ToString::to_string)
            .collect()
    }
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (value, names)) in self.views.iter().enumerate() {
            f.write_str(if at > 0 { "; " } else { "" })?;
            // It comes from Redis.
            let value = value.to_string();
            let value = value.chars().filter(|c| !c.is_control());
            write!(f, "{}", value.take(VALUE_CHARS_MAX).collect::<String>())?;
            write!(f, " ({})", shown(names))?;
        }
        Ok(())
    }
}

fn shown(names: &[&str]) -> String {
    let (first, more) = names.split_at(names.len().min(NAMES_MAX));
    let shown = first.join(", ");
    match more.len() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The names of those that say anything.
pub(super) fn names(all: &[&Shared]) -> String {
    let speaking = all.iter().filter(|it| !it.settings.is_empty());
    shown(&speaking.map(|it| it.name.as_str()).collect::<Vec<_>>())
}

/// Whether some disagree with this one on that variable, and what it is at all.
fn difference<'a>(variable: &'a str, one: &Shared, all: &[&'a Shared]) -> Option<Difference<'a>> {
    let others = all.iter().filter(|it| !one.agrees(it, variable)).count();
    let mut views: Vec<(&Setting, Vec<&str>)> = Vec::new();
    for it in all {
        let Some(value) = it.settings.get(variable) else {
            continue;
        };
        match views.iter_mut().find(|(known, _)| *known == value) {
            Some((_, names)) => names.push(&it.name),
            None => views.push((value, vec![&it.name])),
        }
    }
    (others > 0).then_some(Difference {
        variable,
        others,
        views,
    })
}

/// On what some disagree with this one, which is among them.
pub(super) fn differences<'a>(one: &'a Shared, all: &[&'a Shared]) -> Vec<Difference<'a>> {
    let variables = one.settings.keys();
    variables
        .filter_map(|it| difference(it, one, all))
        .collect()
}

/// On what any two of them disagree, each variable once.
pub(super) fn differences_of_any<'a>(all: &[&'a Shared]) -> Vec<Difference<'a>> {
    let mut found: BTreeMap<&str, Difference<'_>> = BTreeMap::new();
    for it in all.iter().flat_map(|one| differences(one, all)) {
        found.entry(it.variable).or_insert(it);
    }
    found.into_values().collect()
}

/// What the log has: per variable, the values that disagree with this replica's, and when one of them was last seen.
#[derive(Default)]
struct Logged(BTreeMap<String, (BTreeSet<String>, Instant)>);

impl Logged {
    /// The differences that the log does not have yet, and the variables that have not differed for [`FORGET`]. A replica
    /// that joins, leaves or restarts with a value that the log has is no news.
    fn news<'a>(
        &mut self,
        own: &Shared,
        found: &'a [Difference<'a>],
        now: Instant,
    ) -> (Vec<&'a Difference<'a>>, Vec<String>) {
        let mut new = Vec::new();
        for it in found {
            let values = it.disagreeing(own.settings.get(it.variable));
            let entry = self.0.entry(it.variable.to_owned());
            let (logged, seen) = entry.or_insert_with(|| (BTreeSet::new(), now));
            *seen = now;
            if !values.is_subset(logged) {
                logged.extend(values);
                new.push(it);
            }
        }
        let mut gone = Vec::new();
        self.0.retain(|name, (_, seen)| {
            let stays = now.duration_since(*seen) < FORGET;
            if !stays {
                gone.push(name.clone());
            }
            stays
        });
        (new, gone)
    }
}

/// Compares until the store stops.
pub(super) async fn keep_comparing(inner: &Inner) {
    let own = &inner.shared;
    let gauge = |variable: &str| inner.metrics.settings_differ.with_label_values(&[variable]);
    own.settings.keys().for_each(|name| gauge(name).set(0));
    let mut stop = inner.redis.stop_signal();
    let mut others: BTreeMap<String, Shared> = BTreeMap::new();
    let mut logged = Logged::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(COMPARE) => {}
            () = end_of(&mut stop) => return,
        }
        // Where it does not hear of the others, what it knows of them stands.
        let Some(alive) = inner.duty.others() else {
            continue;
        };
        others.retain(|id, _| alive.contains(id));
        match read(inner, alive, &others).await {
            Ok(more) => others.extend(more),
            Err(error) => debug!(%error, "reading the settings of other replicas"),
        }
        let all: Vec<_> = [own].into_iter().chain(others.values()).collect();
        let found = differences(own, &all);
        for name in own.settings.keys() {
            let it = found.iter().find(|it| it.variable == name);
            let count = it.map_or(0, |it| i64::try_from(it.others).unwrap_or(i64::MAX));
            gauge(name).set(count);
        }
        let (new, gone) = logged.news(own, &found, Instant::now());
        for it in new {
            warn!(
                "{} differs between replicas of this data set: {it}. See docs/OPERATIONS.md, TokendSettingsDiffer",
                it.variable
            );
        }
        for name in gone {
            info!("{name} has not differed between replicas for 10 minutes");
        }
    }
}

/// What those say that are not known yet. Replicas of older versions say nothing.
async fn read(
    inner: &Inner,
    alive: Vec<String>,
    known: &BTreeMap<String, Shared>,
) -> Result<Vec<(String, Shared)>, StoreError> {
    let unknown = alive.into_iter().filter(|id| !known.contains_key(id));
    let unknown: Vec<_> = unknown.collect();
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let (key, ids) = (inner.keys.settings.as_str(), &unknown);
    let said: Vec<Option<String>> = inner
        .read(
            key,
            |client| async move { client.hmget(key, ids.clone()).await },
        )
        .await?;
    let said = said.into_iter().map(|text| Shared::parse(&text?));
    let each = unknown.iter().cloned().zip(said);
    Ok(each.filter_map(|(id, said)| Some((id, said?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(name: &str, url: &str) -> Shared {
        let settings = [("A", "1"), ("PUBLIC_URL", url)];
        let value =
            |(name, value): (&str, &str)| (name.to_owned(), Setting::Value(value.to_owned()));
        Shared::new(name.to_owned(), settings.into_iter().map(value).collect())
    }

    fn told(found: &[Difference<'_>]) -> Vec<String> {
        let each = found.iter();
        each.map(|it| format!("{} {}: {it}", it.others, it.variable))
            .collect()
    }

    #[test]
    fn a_difference_names_each_value_and_who_has_it() {
        let (a, b, c) = (shared("a", "x"), shared("b", "y"), shared("c", "y"));
        assert_eq!(differences(&a, &[&a, &a]), []);
        let found = differences(&a, &[&a, &b, &c, &a]);
        assert_eq!(told(&found), ["2 PUBLIC_URL: x (a, a); y (b, c)"]);
        let many = [&a, &b, &b, &b, &b, &b];
        assert_eq!(
            told(&differences(&a, &many)),
            ["5 PUBLIC_URL: x (a); y (b, b, b and 2 more)"]
        );
        // Not of the first, and yet of two.
        let silent = Shared::new("d".to_owned(), Settings::new());
        assert_eq!(differences(&silent, &[&silent, &a, &b]), []);
        let found = differences_of_any(&[&silent, &a, &b]);
        assert_eq!(told(&found), ["1 PUBLIC_URL: x (a); y (b)"]);
    }

    #[test]
    fn the_log_has_each_value_once_until_nothing_has_differed_for_a_while() {
        let (a, b, c) = (shared("a", "x"), shared("b", "y"), shared("c", "z"));
        let (mut log, mut now) = (Logged::default(), Instant::now());
        let mut news = |all: &[&Shared], later: Duration| {
            now += later;
            let found = differences(&a, all);
            let (new, gone) = log.news(&a, &found, now);
            (new.len(), gone.len())
        };
        let second = Duration::from_secs(1);
        assert_eq!(news(&[&a], second), (0, 0));
        assert_eq!(news(&[&a, &b], second), (1, 0));
        assert_eq!(
            news(&[&a, &b, &b], second),
            (0, 0),
            "a value that the log has"
        );
        assert_eq!(news(&[&a, &a, &b], second), (0, 0), "one that agrees joins");
        assert_eq!(news(&[&a, &b, &c], second), (1, 0), "another value");
        assert_eq!(news(&[&a], second), (0, 0));
        assert_eq!(news(&[&a, &b], second), (0, 0), "it restarts");
        assert_eq!(news(&[&a], FORGET), (0, 1));
        assert_eq!(news(&[&a, &b], second), (1, 0), "it comes back");
    }

    #[test]
    fn what_a_later_version_says_is_understood_as_far_as_it_is_known() {
        let text = r#"{"name":"n","since":1,"settings":{"A":"1","B":[1],"C":{"keys":2}}}"#;
        let said = Shared::parse(text).expect("JSON");
        assert_eq!(said.settings.keys().collect::<Vec<_>>(), ["A"]);
        for bad in ["", "[]", "{}", "nonsense"] {
            assert!(Shared::parse(bad).is_none(), "{bad}");
        }
        let own = shared("a", "x");
        let again = Shared::parse(own.text()).expect("our own");
        assert_eq!((&again.name, &again.settings), (&own.name, &own.settings));
    }
}
