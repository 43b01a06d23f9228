//! `tokend healthcheck`: whether the service on this machine is ready, or alive, by its own word. It is what a container
//! has in place of a shell and curl.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::cli::HealthcheckArgs;
use crate::cli::client::{install_tls, transport};
use crate::cli::error::{CallError, EXIT_REFUSED, Failure, Problem};
use crate::cli::output::{one_line, print};
use crate::config::Config;

/// Longest wait for the answer. The service gives Redis 0.3 s before it says that it is not ready; the rest is for a
/// busy machine. Below the 3 s after which the image's HEALTHCHECK is ended from outside, so that a reason is told.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Asks, says in one line what is wrong, and exits with 0 or 1: the two codes that Docker knows.
#[must_use]
pub fn run(args: &HealthcheckArgs, json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::io("cannot start", &error).report(),
    };
    let done = runtime.block_on(check(args, json));
    // A name look-up that hangs sits in a thread of its own; do not wait for it.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => unhealthy(&why).report(),
    }
}

fn unhealthy(why: &str) -> Failure {
    Failure {
        message: one_line(why),
        code: EXIT_REFUSED,
    }
}

async fn check(args: &HealthcheckArgs, json: bool) -> Result<(), String> {
    let config = Config::load().map_err(|error| error.to_string())?;
    let port = args.port.unwrap_or(config.port);
    if port == 0 {
        return Err("PORT is 0, so nobody knows where the service listens".to_owned());
    }
    let path = if args.live { "/livez" } else { "/readyz" };
    let url = format!("http://{}:{port}{path}", reachable(&config.host));
    let body = ask(&url).await.map_err(|why| format!("{url}: {why}"))?;
    let said = serde_json::from_str::<Value>(&body).unwrap_or_default();
    let Some(status) = said["status"].as_str() else {
        return Err(format!("{url}: not an answer of tokend"));
    };
    let told = if json { body.trim() } else { status };
    print(&one_line(told)).map_err(|failure| failure.message)
}

/// Where a service that listens on `host` is reached from its own machine, as a URL writes it.
fn reachable(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "[::1]".to_owned(),
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    }
}

/// The body of a 200; else what is wrong.
async fn ask(url: &str) -> Result<String, String> {
    install_tls();
    let http = reqwest::Client::builder()
        .timeout(TIME_MAX)
        // It is this very machine, and no TLS: neither a proxy nor the system's authorities have a part in it.
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let answer = http.get(url).send().await.map_err(|it| why(&it))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|it| why(&it))?;
    if status == 200 {
        return Ok(body);
    }
    Err(match serde_json::from_str::<Problem>(&body) {
        Ok(problem) if !problem.detail.is_empty() => problem.detail,
        _ => format!("HTTP {}: not an answer of tokend", status.as_u16()),
    })
}

fn why(error: &reqwest::Error) -> String {
    match transport(error) {
        CallError::NoAnswer(why) => format!("no answer: {why}"),
        CallError::NotSent(why) => why,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_reached_by_the_loopback_one_of_their_family() {
        for (host, expected) in [
            ("0.0.0.0", "127.0.0.1"),
            ("::", "[::1]"),
            ("0:0:0:0:0:0:0:0", "[::1]"),
            ("127.0.0.2", "127.0.0.2"),
            ("::1", "[::1]"),
            ("fd00::1", "[fd00::1]"),
            ("tokend.internal", "tokend.internal"),
        ] {
            assert_eq!(reachable(host), expected, "{host}");
        }
    }
}
