//! What a span must not show.

use serde_json::{Value, json};

use super::Stage;

/// Every value that no span may show has this in it.
const SECRET: &str = "s3cret";

/// Requests with secrets in all places; the token that the service made itself, which is as secret.
async fn traffic(stage: &Stage) -> String {
    let seat = format!("{SECRET}-seat");
    let token = json!({ "token": seat });
    let given = stage.post("/tokens/generate", &json!({"tokens": [seat]}));
    assert_eq!(given.send().await.expect("an answer").status(), 201);
    let held = json!({"token": seat, "holder": format!("{SECRET}-holder")});
    let login =
        json!({"username": format!("{SECRET}-user"), "password": format!("{SECRET}-password")});
    for (path, body) in [
        ("/tokens/assign", &held),
        ("/tokens/inspect", &token),
        ("/tokens/unblock", &token),
        ("/tokens/assign?token=s3cret-query", &token),
        ("/auth/login", &login),
        ("/app/valid", &token),
        ("/oauth/introspect", &token),
        ("/v1/pools/s3cret-pool/assign", &token),
        ("/s3cret-path", &token),
    ] {
        let request = stage.post(path, body);
        let request = request.bearer_auth(format!("{SECRET}-bearer"));
        request
            .header("user", "s3cret@example.com")
            .send()
            .await
            .expect("an answer");
    }
    let path = format!("/app/valid/{SECRET}-in-path");
    assert_eq!(stage.service.get(&path).await.0, 200);
    let made = stage
        .post("/app/token", &json!({}))
        .send()
        .await
        .expect("an answer");
    let made: Value = made.json().await.expect("JSON");
    let made = made["token"].as_str().expect("a token").to_owned();
    stage
        .post("/app/valid", &json!({"token": made}))
        .send()
        .await
        .expect("an answer");
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn no_span_shows_a_token_a_holder_a_password_or_a_key() {
    let test = "no_span_shows_a_token_a_holder_a_password_or_a_key";
    let headers = format!("authorization=Bearer%20{SECRET}-key");
    let settings = [
        ("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str()),
        ("LOG_LEVEL", "trace"),
    ];
    let Some(mut stage) = Stage::start(test, &settings).await else {
        return;
    };
    let made = traffic(&stage).await;
    stage.stop().await;
    let text = stage.collector.text();
    assert!(
        text.contains("GET /app/valid/{token") && text.contains("unblock"),
        "{text}"
    );
    assert!(!text.contains(SECRET) && !text.contains(&made), "{text}");
    // The key went where it belongs, and nowhere else.
    assert!(stage.collector.heads()[0].contains(&format!("Bearer {SECRET}-key")));
    assert!(stage.collector.heads()[0].starts_with("/v1/traces "));
    let log = stage.service.process.log().concat();
    assert!(!log.contains(SECRET));
}
