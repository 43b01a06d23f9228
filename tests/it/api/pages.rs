//! The pages, and that none of them loads anything from another host.

use super::{Answer, Server};
use crate::harness::Fixture;

const PAGES: [&str; 7] = [
    "/",
    "/reference",
    "/docs",
    "/redoc",
    "/problems",
    "/problems/pool-full",
    "/problems/internal",
];

/// What stands in quotes behind `name=` in the page.
fn attributes<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let values = page.split(name).skip(1);
    values.filter_map(|rest| rest.strip_prefix("=\"")?.split('"').next())
}

fn csp(page: &Answer) -> &str {
    page.header("content-security-policy").expect("a policy")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_html_under_a_strict_policy() {
    let server = Server::start().await;
    for path in PAGES {
        let page = server.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8"),
            "{path}"
        );
        let policy = csp(&page);
        assert!(
            policy.starts_with("default-src 'none';"),
            "{path}: {policy}"
        );
        for lax in ["unsafe", "http", "*"] {
            assert!(!policy.contains(lax), "{path}: {policy}");
        }
        let loaded = attributes(&page.body, "src")
            .chain(attributes(&page.body, "<link rel=\"stylesheet\" href"));
        for source in loaded {
            assert!(
                source.starts_with('/') && !source.starts_with("//"),
                "{path}: {source}"
            );
            assert_eq!(server.get(source).await.status, 200, "{path}: {source}");
        }
    }
    assert!(!csp(&server.get("/reference").await).contains("script-src"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_of_the_pages_leads_somewhere() {
    let server = Server::start().await;
    let reference = server.get("/reference").await.body;
    for path in ["/", "/reference", "/problems"] {
        let page = server.get(path).await.body;
        let mut links: Vec<_> = attributes(&page, "<a href").collect();
        links.sort_unstable();
        links.dedup();
        assert!(links.len() > 5, "{path}: {links:?}");
        for link in links {
            let (target, fragment) = link.split_once('#').unwrap_or((link, ""));
            if !target.is_empty() {
                assert_eq!(server.get(target).await.status, 200, "{path}: {link}");
            }
            let there = reference.contains(&format!("id=\"{fragment}\""));
            assert!(fragment.is_empty() || there, "{path}: {link}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_heads_the_document_and_the_pages() {
    let mut flows = super::flows();
    flows.settings.title = "Seats & <Co>".to_owned();
    flows.settings.description = "For \"ours\" alone.".to_owned();
    let server = Server::with(Fixture::new().await, flows).await;
    let document = server.get("/openapi.json").await.json(200);
    assert_eq!(document["info"]["title"], "Seats & <Co>");
    for path in ["/", "/reference", "/docs", "/redoc"] {
        let page = server.get(path).await.body;
        assert!(page.contains("<title>Seats &amp; &lt;Co&gt;"), "{path}");
        assert!(!page.contains("<Co>"), "{path}");
    }
    let start = server.get("/").await.body;
    assert!(start.contains("For &quot;ours&quot; alone."), "{start}");
    assert!(
        start.contains("curl -X POST http://tokend.test/app/token"),
        "{start}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundles_are_told_to_ask_no_other_host() {
    let server = Server::start().await;
    let start = server.get("/docs/swagger-initializer.js").await.body;
    assert!(start.contains(r#""validatorUrl": "none""#), "{start}");
    assert!(start.contains(r#""/openapi.json""#), "{start}");
    let redoc = server.get("/redoc/redoc.standalone.js").await.body;
    assert!(redoc.len() > 1_000_000 && !redoc.contains("cdn."));
    let notices = server.get("/redoc/redoc.standalone.js.LICENSE.txt").await;
    assert!(notices.body.contains("MIT"), "{}", notices.body);
    for missing in ["/docs/nope.js", "/docs/index.html", "/redoc/nope.js"] {
        server.get(missing).await.problem("not-found", 404);
    }
}
