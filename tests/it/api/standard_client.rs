//! A client of another language that nobody has changed for us: see `tests/clients/oauth.py`.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::rotation::key_file;
use super::{Server, flows_with};
use crate::harness::{Fixture, skip};
use crate::process::Directory;

/// The interpreter with the client's packages, or why there is none.
fn python() -> Result<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/python-client.sh");
    let ran = Command::new("bash").arg(script).output();
    let ran = ran.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ran.status.success() {
        Ok(text(&ran.stdout))
    } else {
        Err(text(&ran.stderr))
    }
}

fn run(python: &str, issuer: &str, tokens: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/oauth.py");
    let mut child = Command::new(python)
        .args([script, issuer])
        // It refuses http otherwise.
        .env("AUTHLIB_INSECURE_TRANSPORT", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(tokens.as_bytes()).expect("written");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_verifies_introspects_and_revokes_an_access_token() {
    let python = match tokio::task::spawn_blocking(python).await.expect("no panic") {
        Ok(python) => python,
        Err(why) => {
            let test = "authlib_verifies_introspects_and_revokes_an_access_token";
            return skip(test, &why);
        }
    };
    let directory = Directory::new();
    let file = key_file(directory.path(), "jwt");
    let fixture = Fixture::new().await;
    fixture.add_user("ann").await;
    let server = Server::with_flows(fixture, |address| {
        let url = format!("http://{address}");
        flows_with(&[
            ("JWT_PRIVATE_KEY_FILE", file.as_str()),
            ("JWT_SECRET", ""),
            ("PUBLIC_URL", url.as_str()),
        ])
    })
    .await;
    let tokens = server.login().await;
    let issuer = format!("http://{}", server.address);
    let both = format!("{}\n{}\n", tokens.access, tokens.refresh);
    let ran = tokio::task::spawn_blocking(move || run(&python, &issuer, &both)).await;
    let ran = ran.expect("no panic");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    assert!(!server.is_valid(&tokens.access).await, "it was revoked");
    server
        .try_refresh(&tokens.refresh)
        .await
        .problem("invalid-grant", 401);
}
