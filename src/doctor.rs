//! `tokend doctor`: whether the Redis that `tokend serve` would use can keep what tokend promises, and whether the replicas
//! on it have the same settings. It goes to Redis itself, and changes nothing there.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::error::{EXIT_REFUSED, Failure};
use crate::cli::output::{one_line, print};
use crate::config::Config;
use crate::flows::Flows;
use crate::shared::shared;
use crate::store::{Diagnosis, Finding, Grade, Shared, Store};
use crate::users;

/// Looks, prints what it found, and says by its exit code whether anything failed.
#[must_use]
pub fn run(json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(look(json)),
        Err(error) => Err(Failure::io("cannot start", &error)),
    };
    done.unwrap_or_else(|failure| failure.report())
}

async fn look(json: bool) -> Result<ExitCode, Failure> {
    let config = users::load_config()?;
    let store = users::store_config(&config)?;
    let diagnoses = Store::diagnose(store, of_environment(&config)?).await;
    let diagnoses = diagnoses.map_err(|why| users::unavailable(&why))?;
    let (redis, keys) = (config.redis(), config.key_prefix.as_str());
    print(&if json {
        as_json(&redis, keys, &diagnoses)
    } else {
        let head = one_line(&format!("Redis: {redis}, keys: {keys}"));
        format!("{head}\n{}", as_table(&diagnoses))
    })?;
    Ok(if has_failed(&diagnoses) {
        ExitCode::from(EXIT_REFUSED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The settings that a replica with this environment would have.
fn of_environment(config: &Config) -> Result<Shared, Failure> {
    // Of the embedded Redis there is one replica, which may have made its secrets itself.
    if config.redis_url.is_none() {
        return Ok(Shared::default());
    }
    let flows = Flows::new(config.flows.clone(), String::new(), None).map_err(Failure::usage)?;
    let here = shared("this environment".to_owned(), config, &flows);
    // By default it depends on where a replica listens, which may be a flag.
    Ok(match config.flows.public_url {
        Some(_) => here,
        None => here.without("PUBLIC_URL"),
    })
}

fn has_failed(diagnoses: &[Diagnosis]) -> bool {
    let mut findings = diagnoses.iter().flat_map(|it| &it.findings);
    findings.any(|finding| finding.grade == Grade::Fail)
}

fn as_json(redis: &str, keys: &str, diagnoses: &[Diagnosis]) -> String {
    let finding = |it: &Finding| {
        let grade = it.grade.as_str();
        json!({ "check": it.check, "grade": grade, "found": it.found, "mend": it.mend })
    };
    let server = |it: &Diagnosis| {
        let findings: Vec<_> = it.findings.iter().map(finding).collect();
        json!({ "server": it.server, "findings": findings })
    };
    let servers: Vec<_> = diagnoses.iter().map(server).collect();
    json!({ "ok": !has_failed(diagnoses), "redis": redis, "keys": keys, "servers": servers })
        .to_string()
}

/// A table per server; below what has to be mended stands the line that mends it.
fn as_table(diagnoses: &[Diagnosis]) -> String {
    let mut lines = Vec::new();
    for Diagnosis { server, findings } in diagnoses {
        lines.push(one_line(server));
        let widest = findings.iter().map(|it| it.check.len()).max().unwrap_or(0);
        for it in findings {
            let found = one_line(&it.found);
            lines.push(format!(
                "  {:<4}  {:<widest$}  {found}",
                it.grade.as_str(),
                it.check
            ));
            if let Some(mend) = &it.mend {
                lines.push(format!(
                    "  {:<4}  {:<widest$}  -> {}",
                    "",
                    "",
                    one_line(mend)
                ));
            }
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnoses(grade: Grade) -> Vec<Diagnosis> {
        let finding = |check, grade, found: &str, mend: Option<&str>| Finding {
            check,
            grade,
            found: found.to_owned(),
            mend: mend.map(str::to_owned),
        };
        vec![Diagnosis {
            server: "localhost:6379".to_owned(),
            findings: vec![
                finding("version", Grade::Ok, "7.0.15", None),
                finding(
                    "append-only",
                    grade,
                    "off\n",
                    Some("CONFIG SET appendonly yes"),
                ),
            ],
        }]
    }

    #[test]
    fn what_has_to_be_mended_stands_above_the_line_that_mends_it() {
        assert_eq!(
            as_table(&diagnoses(Grade::Warn)),
            "localhost:6379\n  ok    version      7.0.15\n  warn  append-only  off \n                     \
             -> CONFIG SET appendonly yes"
        );
    }

    #[test]
    fn only_what_failed_is_not_ok() {
        for (grade, ok) in [
            (Grade::Info, true),
            (Grade::Warn, true),
            (Grade::Fail, false),
        ] {
            let told: serde_json::Value =
                serde_json::from_str(&as_json("", "", &diagnoses(grade))).expect("JSON");
            assert_eq!(told["ok"], ok, "{grade:?}");
            assert_eq!(told["servers"][0]["findings"][1]["grade"], grade.as_str());
        }
    }
}
