//! `GET /`: what this service is, for whoever finds it.

use std::fmt::Write as _;

use super::page::{escape, marked_up, plain};

/// A kind of token: its name, what it is for, where to read on, and a line to try.
struct Kind {
    name: &'static str,
    meaning: &'static str,
    links: &'static [(&'static str, &'static str)],
    curl: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "Pool tokens",
        meaning: "Scarce things, such as seats of a licence: each goes to at most one holder at a time, and \
                  comes back by itself when its lease has passed.",
        links: &[
            ("reference", "/reference#assign_token"),
            ("pools", "/v1/pools"),
        ],
        curl: "curl -X POST {url}/tokens/generate -H 'content-type: application/json' -d '{\"count\": 10}'\n\
               curl -X POST {url}/tokens/assign",
    },
    Kind {
        name: "Temporary tokens",
        meaning: "Short-lived, for callers who ask only whether one is still good.",
        links: &[("reference", "/reference#create_temporary_token")],
        curl: "curl -X POST {url}/app/token",
    },
    Kind {
        name: "One-time tokens",
        meaning: "They carry metadata, and are exchanged for a successor at each use.",
        links: &[("reference", "/reference#create_token")],
        curl: "curl -X POST {url}/token -H 'content-type: application/json' -d '{\"meta\": {\"order\": 4711}}'",
    },
    Kind {
        name: "Unified tokens",
        meaning: "They live a day, and any service can check them by OAuth's introspection.",
        links: &[
            ("reference", "/reference#create_token"),
            ("introspection", "/reference#introspect_token"),
        ],
        curl: "curl -X POST {url}/token -H 'user: ann@example.com'",
    },
    Kind {
        name: "Sessions",
        meaning: "A login gives a short-lived access token (JWT), and a refresh token that rotates.",
        links: &[
            ("reference", "/reference#log_in"),
            ("public keys", "/.well-known/jwks.json"),
            ("server metadata", "/.well-known/oauth-authorization-server"),
        ],
        curl: "curl -X POST {url}/auth/login -H 'content-type: application/json' \\\n  \
               -d '{\"username\": \"ann\", \"password\": \"…\"}'",
    },
];

/// Where else to go, and what is there.
const LINKS: [(&str, &str); 8] = [
    ("/reference", "the reference, without scripts"),
    ("/docs", "the reference in Swagger UI, to try it out"),
    ("/redoc", "the reference in ReDoc"),
    ("/openapi.json", "the OpenAPI document"),
    (
        "/problems",
        "every kind of problem, and what to do about it",
    ),
    ("/livez", "whether the process answers"),
    ("/readyz", "whether it can serve"),
    ("/metrics", "metrics for Prometheus"),
];

/// The page, headed as the environment says; `url` is where the service is seen from outside.
pub fn page(title: &str, description: &str, url: &str) -> String {
    let mut content = format!(
        "<h1>{}</h1>\n<p>{}</p>\n<ul>\n",
        escape(title),
        escape(description)
    );
    for (path, meaning) in LINKS {
        // Writing to a String cannot fail.
        let _ = writeln!(content, "<li><a href=\"{path}\">{path}</a>: {meaning}</li>");
    }
    content.push_str("</ul>\n");
    for kind in KINDS {
        let links = kind.links.iter();
        let links = links.map(|(name, path)| format!("<a href=\"{path}\">{name}</a>"));
        let links: Vec<_> = links.collect();
        let _ = writeln!(
            content,
            "<h2>{}</h2>\n<p>{} ({})</p>\n<pre><code>{}</code></pre>",
            kind.name,
            marked_up(kind.meaning),
            links.join(", "),
            escape(&kind.curl.replace("{url}", url))
        );
    }
    plain(title, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_headed_by_the_environment_and_escapes_it() {
        let page = page("<T>", "a & b", "https://t.example");
        assert!(page.contains("<h1>&lt;T&gt;</h1>"));
        assert!(page.contains("<p>a &amp; b</p>"));
        assert!(page.contains("curl -X POST https://t.example/app/token"));
        assert!(!page.contains("{url}"));
    }
}
