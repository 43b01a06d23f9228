//! Three replicas behind a real nginx with the configuration that `compose.yaml` ships: each is restarted in turn while
//! requests go on, and no request notices.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::{on_path, repository};
use crate::support::{
    Directory, OwnRedis, PATIENCE, Port, Process, Tokend, eventually, http_client, skip,
};

const REPLICAS: usize = 3;
/// Callers at the same time, and tokens: so many that none is ever refused one.
const CALLERS: usize = 16;
/// More than nginx keeps an idle connection, as nginx.conf says.
const SETTINGS: &[(&str, &str)] = &[("SHUTDOWN_DELAY", "2"), ("PARTITIONS", "2")];

/// The shipped configuration with these addresses in place of its own.
fn configuration(directory: &Directory, port: u16, replicas: &[u16]) -> String {
    let text = std::fs::read_to_string(repository("deploy/compose/nginx.conf"));
    let mut text = text.expect("the shipped configuration");
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in nginx.conf");
        text = text.replace(from, to);
    };
    replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
    replace("/tmp/", &format!("{}/", directory.path().display()));
    for (at, replica) in replicas.iter().enumerate() {
        let address = format!("172.30.0.{}:3000", 11 + at);
        replace(&address, &format!("127.0.0.1:{replica}"));
    }
    assert!(!text.contains("172.30."), "more replicas than {REPLICAS}");
    text
}

/// Ends in order: killed, it would leave its workers behind.
struct Nginx(Process);

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.0.ended().is_none() {
            self.0.signal("TERM");
        }
        let until = Instant::now() + PATIENCE;
        while self.0.ended().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// nginx, and the URL at which it answers for the replicas on these ports.
async fn start_nginx(directory: &Directory, port: u16, replicas: &[u16]) -> (Nginx, String) {
    let text = configuration(directory, port, replicas);
    let file = directory.write("nginx.conf", &text);
    let nginx = on_path("nginx").expect("looked up before");
    let mut command = Command::new(nginx);
    command
        // As root it would give its workers to a user who may not write here.
        .args(["-e", "stderr", "-g", "daemon off; user root;", "-c"])
        .arg(file);
    let mut nginx = Nginx(Process::start(&mut command));
    let url = format!("http://127.0.0.1:{port}");
    nginx.0.until_ok(&format!("{url}/livez")).await;
    (nginx, url)
}

/// One answer, which must be a 200.
async fn post(http: &reqwest::Client, url: &str, body: &Value) -> Result<Value, String> {
    let answer = http.post(url).json(body).send().await;
    let answer = answer.map_err(|error| format!("{url}: {error:?}"))?;
    let (status, text) = (answer.status(), answer.text().await);
    let text = text.map_err(|error| format!("{url}: {error:?}"))?;
    if status == 200 {
        Ok(serde_json::from_str(&text).expect("JSON"))
    } else {
        Err(format!("{url}: {status} {text}"))
    }
}

/// Takes a token and gives it back until told to stop. How many requests were answered well, and what was not.
async fn call(url: String, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let http = http_client();
    let (mut answered, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let round = async {
            let assign = format!("{url}/v1/pools/seats/assign");
            let grant = post(&http, &assign, &json!({})).await?;
            let named = json!({"token": grant["token"], "fence": grant["fence"]});
            for verb in ["keep-alive", "unblock"] {
                post(&http, &format!("{url}/v1/pools/seats/{verb}"), &named).await?;
            }
            Ok::<_, String>(3)
        };
        match round.await {
            Ok(more) => answered += more,
            Err(why) => failed.push(why),
        }
    }
    (answered, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_behind_nginx_costs_no_request() {
    let test = "a_rolling_restart_behind_nginx_costs_no_request";
    if on_path("nginx").is_none() {
        return skip(test, "there is no nginx on PATH");
    }
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip(test, "there is no redis-server on PATH");
    };
    let directory = Directory::new();
    let front = Port::claim();
    let claims: Vec<_> = (0..REPLICAS).map(|_| Port::claim()).collect();
    let ports: Vec<_> = claims.iter().map(|claim| claim.number).collect();
    let start = async |port: u16| {
        let port = port.to_string();
        let settings = [&[("PORT", port.as_str())], SETTINGS].concat();
        Tokend::on(&redis, &directory, &settings).await
    };
    let mut replicas = Vec::new();
    for port in &ports {
        replicas.push(start(*port).await);
    }
    let (nginx, url) = start_nginx(&directory, front.number, &ports).await;
    let http = http_client();
    let pool = format!("{url}/v1/pools/seats");
    let made = http.put(&pool).json(&json!({})).send().await;
    assert_eq!(made.expect("an answer").status(), 201);
    let count = json!({"count": CALLERS});
    let made = http.post(format!("{pool}/generate")).json(&count).send();
    assert_eq!(made.await.expect("an answer").status(), 201);

    let stop = Arc::new(AtomicBool::new(false));
    let callers = (0..CALLERS).map(|_| tokio::spawn(call(url.clone(), Arc::clone(&stop))));
    let callers: Vec<_> = callers.collect();
    for (replica, port) in replicas.iter_mut().zip(&ports) {
        replica.process.stop("TERM").await;
        *replica = start(*port).await;
        // Whom nginx asks for what is its own affair: waited for, not counted on.
        eventually("the new replica grants", async || {
            has_granted(replica).await
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut answered, mut failed) = (0, Vec::new());
    for caller in callers {
        let (more, wrong) = caller.await.expect("a caller ends");
        answered += more;
        failed.extend(wrong);
    }
    assert!(failed.is_empty(), "{failed:#?}\n{:#?}", nginx.0.log());
    println!("{answered} requests, none failed");
    // Each caller gave back what it had been given.
    let told = http.get(&pool).send().await.expect("an answer");
    let told: Value = told.json().await.expect("JSON");
    assert_eq!(told["free"], CALLERS, "{told}");
}

/// Whether this replica, since it began, has had its share of the work.
async fn has_granted(replica: &Tokend) -> bool {
    let granted = r#"outcome="granted",pool="seats",verb="assign""#;
    replica.metrics().await.contains(granted)
}
