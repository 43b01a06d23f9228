//! Every query of every dashboard, and every rule's expression, on a real Prometheus that scrapes a service which is
//! driven: each returns data. One that names a metric or a label that there is not never does.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::machine::repository;
use crate::prometheus::{Listener, Prometheus, job, shipped_rules, text};
use crate::support::{Directory, OwnRedis, Tokend, eventually, http_client, skip};

/// What kube-state-metrics would tell.
const KUBE: &str = "kube_deployment_spec_replicas{namespace=\"tok\",deployment=\"tokend\"} 3\n\
    kube_deployment_status_replicas_available{namespace=\"tok\",deployment=\"tokend\"} 2\n";
/// What Grafana would make of `$__rate_interval`, for a graph of an hour.
const RATE_INTERVAL: &str = "16s";
/// And of `$__rate_interval_ms` in an annotation, of which Grafana asks a step of a minute at least.
const ANNOTATION_INTERVAL_MS: &str = "75000";
/// A pool that has never granted anything.
const REFUSING: &str = "refusing";

/// One thing to ask.
struct Query {
    /// The dashboard or `rules`, and the panel or the rule.
    place: String,
    name: String,
    expr: String,
    kind: Kind,
    found: usize,
}

#[derive(PartialEq)]
enum Kind {
    Panel,
    /// `label_values(series, label)` of a template variable.
    Variable,
    Rule,
}

/// With the template variables as Grafana fills them in.
fn filled(expr: &str, pool: &str) -> String {
    let expr = expr.replace("$__rate_interval_ms", ANNOTATION_INTERVAL_MS);
    let expr = expr.replace("$__rate_interval", RATE_INTERVAL);
    let expr = expr.replace("$pool", pool);
    let expr = expr.replace("$namespace", "tok").replace("$job", "tokend");
    assert!(!expr.contains('$'), "an unknown variable: {expr}");
    expr
}

/// With each comparison's answer in place of a filter: an alert that does not fire returns data too.
fn with_bool(expr: &str) -> String {
    let mut told = expr.to_owned();
    for comparison in [">", "<", ">=", "<=", "==", "!="] {
        told = told.replace(&format!(" {comparison} "), &format!(" {comparison} bool "));
    }
    told
}

/// All queries of a dashboard, for that choice of pools.
fn queries_of(dashboard: &str, pool: &str) -> Vec<Query> {
    let file = repository(&format!("grafana/dashboards/{dashboard}.json"));
    let read = std::fs::read_to_string(file).expect("a dashboard");
    let read: Value = serde_json::from_str(&read).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let query = |name: String, expr: String, kind| Query {
        place: format!("{dashboard} ({pool})"),
        name,
        expr,
        kind,
        found: 0,
    };
    let mut queries = Vec::new();
    for panel in list(&read["panels"]) {
        let (title, targets) = (text(&panel["title"]), list(&panel["targets"]));
        assert!(
            panel["type"] == "row" || !targets.is_empty(),
            "{title}: no query"
        );
        for target in targets {
            let expr = filled(&text(&target["expr"]), pool);
            queries.push(query(title.clone(), expr, Kind::Panel));
        }
    }
    for annotation in list(&read["annotations"]["list"]) {
        // With its filter: the services have just been started, and that must be marked.
        let expr = filled(&text(&annotation["expr"]), pool);
        queries.push(query(text(&annotation["name"]), expr, Kind::Panel));
    }
    for variable in list(&read["templating"]["list"]) {
        if variable["type"] == "query" {
            let expr = filled(&text(&variable["query"]["query"]), pool);
            queries.push(query(
                format!("${}", text(&variable["name"])),
                expr,
                Kind::Variable,
            ));
        }
    }
    queries
}

/// What must be told when one thing only is chosen: refusals of a pool that has granted nothing, and, for a job, the
/// alert that has none.
fn queries_of_choices() -> Vec<Query> {
    let mut queries = queries_of("pool", REFUSING);
    queries.retain(|it| it.name == "Assigns refused");
    let mut alerts = queries_of("overview", ".*");
    alerts.retain(|it| it.name == "Alerts");
    for alert in &mut alerts {
        "TokendReplicasMissing".clone_into(&mut alert.name);
        alert.expr = alert.expr.replace("Tokend.+", &alert.name);
    }
    queries.append(&mut alerts);
    assert_eq!(queries.len(), 2, "both were found");
    queries
}

impl Query {
    async fn run(&mut self, prometheus: &Prometheus) {
        let is_number = |value: &f64| !value.is_nan();
        self.found = match self.kind {
            Kind::Panel => {
                let values = prometheus.query(&self.expr).await;
                values.iter().filter(|value| is_number(value)).count()
            }
            Kind::Variable => {
                let asked = self.expr.strip_prefix("label_values(");
                let asked = asked.and_then(|asked| asked.strip_suffix(')'));
                let (series, label) = asked
                    .and_then(|it| it.rsplit_once(", "))
                    .expect("label_values");
                prometheus.label_values(label, series).await
            }
            Kind::Rule if self.expr.contains("absent(") => {
                prometheus.query_before_all(&self.expr).await.len()
            }
            Kind::Rule => prometheus.query(&self.expr).await.len(),
        };
    }
}

async fn make_pools(service: &Tokend) {
    let short = json!({"lifetime": 1, "cooldown": 1, "idle_limit": 1, "max_tokens": 6});
    for (pool, policy) in [("seats", short), (REFUSING, json!({}))] {
        let path = format!("/v1/pools/{pool}");
        let put = service.ask(Method::PUT, &path, Some(policy)).await;
        assert_eq!(put.expect("an answer").0, 201, "{pool}");
    }
}

/// Requests of every kind: grants, refusals, lapses, leases that are lost, a full pool, a waiter, an error.
async fn drive(http: &reqwest::Client, services: &[Tokend]) {
    let post = async |replica: usize, path: &str, body: Value| -> Value {
        let url = format!("{}{path}", services[replica].url);
        let answer = http.post(url).json(&body).send().await.expect("an answer");
        answer.json().await.unwrap_or_default()
    };
    let seats =
        async |verb: &str, body: Value| post(0, &format!("/v1/pools/seats/{verb}"), body).await;
    let made = seats("generate", json!({"count": 2})).await;
    seats("generate", json!({"count": 100})).await;
    seats("delete", json!({"token": made["tokens"][0]})).await;
    let granted = seats("assign", json!({})).await;
    let mut lease = json!({"token": granted["token"], "fence": granted["fence"]});
    for verb in ["inspect", "keep-alive", "unblock"] {
        seats(verb, lease.clone()).await;
    }
    lease["fence"] = json!(1);
    for verb in ["keep-alive", "unblock"] {
        seats(verb, lease.clone()).await;
    }
    for _ in 0..8 {
        // What is granted lapses.
        post(1, "/v1/pools/seats/assign", json!({})).await;
    }
    seats("assign", json!({"wait_seconds": 0.1})).await;
    post(1, &format!("/v1/pools/{REFUSING}/assign"), json!({})).await;
    post(1, "/app/token", json!({})).await;
    // Its secret is not set: 503.
    post(1, "/token", json!({"meta": {}})).await;
}

fn table(queries: &[Query]) -> String {
    let rows = queries.iter().map(|query| {
        let Query {
            place,
            name,
            expr,
            found,
            ..
        } = query;
        format!("| {place} | {name} | `{expr}` | {found} |\n")
    });
    "| where | panel or rule | query | series |\n| --- | --- | --- | --- |\n".to_owned()
        + &rows.collect::<String>()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_every_rule_returns_data() {
    let test = "every_panel_and_every_rule_returns_data";
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip(test, "no redis-server");
    };
    let directory = Directory::new();
    let mut services = Vec::new();
    for _ in 0..2 {
        services.push(Tokend::on(&redis, &directory, &[]).await);
    }
    make_pools(&services[0]).await;
    let kube = Listener::start(KUBE);
    let urls: Vec<_> = services
        .iter()
        .map(|service| service.url.as_str())
        .collect();
    let jobs = format!(
        "scrape_configs:\n{}{}",
        job("tokend", &urls),
        job("kube-state-metrics", &[&kube.url])
    );
    let Some(prometheus) = Prometheus::start(test, &jobs, &shipped_rules()).await else {
        return;
    };
    let mut queries = queries_of("overview", ".*");
    queries.extend(queries_of("pool", ".*"));
    queries.extend(queries_of("pool", "seats"));
    queries.extend(queries_of_choices());
    queries.extend(prometheus.rules().await.into_iter().map(|rule| Query {
        place: "rules".to_owned(),
        name: rule.name,
        expr: if rule.is_alert {
            with_bool(&rule.expr)
        } else {
            rule.expr
        },
        kind: Kind::Rule,
        found: 0,
    }));
    assert!(queries.len() > 100, "all were read: {}", queries.len());
    let (http, began) = (http_client(), Instant::now());
    eventually("every query returns data", async || {
        // With pauses in which tokens idle for longer than they may.
        if began.elapsed().as_secs() % 4 < 2 {
            drive(&http, &services).await;
        }
        for query in queries.iter_mut().filter(|query| query.found == 0) {
            query.run(&prometheus).await;
        }
        let silent = queries.iter().filter(|query| query.found == 0);
        let silent: Vec<_> = silent.map(|query| (&query.place, &query.name)).collect();
        println!("without data yet: {silent:?}");
        silent.is_empty()
    })
    .await;
    println!("{}", table(&queries));
    // And what is not there returns none.
    for planted in [
        "tokend_pool_token",
        "sum(rate(tokend_refusals_total{verb=\"assigned\"}[16s]))",
        "sum by (job) (tokend_pool_tokens{pools=\"seats\"})",
    ] {
        assert!(prometheus.query(planted).await.is_empty(), "{planted}");
    }
}

#[test]
fn comparisons_become_answers() {
    assert_eq!(
        with_bool("a{b=\"c\"} > 0 and (d >= 5) < on (x) e"),
        "a{b=\"c\"} > bool 0 and (d >= bool 5) < bool on (x) e"
    );
}
