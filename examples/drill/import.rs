//! 100,000 phone numbers imported from a file by the command line, then 10,000 generated in one call.

use std::fmt::Write;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::Report;
use super::process::{self, Directory};

const NUMBERS: usize = 100_000;
/// Times that the pool is asked for, to tell the usual time of an answer.
const SHOWS: usize = 100;

pub async fn drill() -> Report {
    let mut report = Report::default();
    let scratch = Directory::new();
    let port = process::free_port();
    let data = scratch.path().join("data");
    let data = data.to_str().expect("UTF-8");
    // On the embedded Redis, each write fsynced: what `make run` serves.
    let _tokend = process::tokend(port, &[("DATA_DIR", data), ("REDIS_URL", "")]);
    let client = process::http();
    process::ready(&client, port).await;
    let url = format!("http://127.0.0.1:{port}");
    let pool = format!("{url}/v1/pools/numbers");
    let policy = json!({"max_tokens": 1_000_000});
    client.put(&pool).json(&policy).send().await.expect("PUT");

    let file = scratch.path().join("numbers.txt");
    let lines = (0..NUMBERS).fold(String::new(), |mut lines, n| {
        let _ = writeln!(lines, "+49155{:08}", n * 977 % 100_000_000);
        lines
    });
    std::fs::write(&file, lines).expect("a file");
    let began = Instant::now();
    let status = Command::new(process::program())
        .args(["import", "--url", &url, "--pool", "numbers"])
        .arg(&file)
        .status()
        .expect("tokend import");
    report.figure(
        "import of 100,000 numbers",
        format!("{:.2?}", began.elapsed()),
    );
    report.check(status.success(), "the import failed");

    let mut times = Vec::new();
    let mut shown = Value::Null;
    for _ in 0..SHOWS {
        let began = Instant::now();
        let answer = client.get(&pool).send().await.expect("GET");
        shown = answer.json().await.expect("JSON");
        times.push(began.elapsed());
    }
    times.sort();
    report.figure(
        "GET /v1/pools/numbers, median",
        format!("{:.2?}", times[SHOWS / 2]),
    );
    report.check(shown["free"] == NUMBERS, format!("the pool shows {shown}"));

    let began = Instant::now();
    let request = client.post(format!("{pool}/generate"));
    let answer = request.json(&json!({"count": 10_000})).send().await;
    let made: Value = answer.expect("generate").json().await.expect("JSON");
    report.figure(
        "generate of 10,000 in one call",
        format!("{:.2?}", began.elapsed()),
    );
    let count = made["tokens"].as_array().map_or(0, Vec::len);
    report.check(count == 10_000, format!("generated {count}"));
    report
}
