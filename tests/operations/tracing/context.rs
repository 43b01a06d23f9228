//! What of a caller's context goes on: W3C Trace Context.

use serde_json::json;

use super::{PARENT, Stage, TRACE};

#[tokio::test(flavor = "multi_thread")]
async fn all_tracestates_go_on_and_no_more_than_512_characters_of_them() {
    let test = "all_tracestates_go_on_and_no_more_than_512_characters_of_them";
    let Some(stage) = Stage::start(test, &[]).await else {
        return;
    };
    let long = "x".repeat(200);
    let request = stage.post("/tokens/generate", &json!({"count": 1}));
    let request = request
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("tracestate", format!("a={long},b=1"))
        .header("tracestate", format!("c={long},d={long}"));
    assert_eq!(request.send().await.expect("an answer").status(), 201);
    let served = stage
        .collector
        .find("the request's span", |it| it.parent == PARENT)
        .await;
    assert_eq!(served.state, format!("a={long},b=1,c={long}"));
    let call = stage
        .collector
        .find("its call's span", |it| it.parent == served.id)
        .await;
    assert_eq!(call.state, served.state);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_parents_or_a_malformed_one_are_none() {
    let test = "two_parents_or_a_malformed_one_are_none";
    let Some(stage) = Stage::start(test, &[]).await else {
        return;
    };
    let parent = format!("00-{TRACE}-{PARENT}-01");
    for parents in [vec![parent.as_str(), &parent], vec!["00-1-2-1"]] {
        let mut request = stage.post("/tokens/generate", &json!({"count": 1}));
        for parent in &parents {
            request = request.header("traceparent", *parent);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        let served = stage.span_of(&answer).await;
        assert_eq!(served.parent, "", "{parents:?}");
        assert_ne!(served.trace, TRACE);
    }
}
