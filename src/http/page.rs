//! The common form of the pages for people: plain HTML that loads nothing from elsewhere.

use std::fmt::Write as _;
use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = "\
    :root{color-scheme:light dark}\
    body{font:1rem/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}\
    code{background:#8882;padding:0 .2em}\
    pre{background:#8882;padding:.5em;overflow-x:auto}pre code{background:none;padding:0}\
    table{border-collapse:collapse}th,td{border:1px solid #8888;padding:.2em .5em;text-align:left;vertical-align:top}\
    h2{border-bottom:1px solid #8888;margin-top:2.5rem}h3{margin-top:2rem}";

/// Nothing but the style above, known by its hash.
static PLAIN: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    policy(&format!("style-src 'sha256-{hash}'"))
});

/// A content security policy that allows these things and nothing else. An empty icon keeps browsers from
/// asking for one.
pub fn policy(allowed: &str) -> String {
    format!(
        "default-src 'none'; {allowed}; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

/// The answer with a page under its content security policy.
pub fn respond(policy: &str, page: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(page)
}

/// A whole page. `head` and `content` are markup, the title is text.
pub fn page(title: &str, head: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"data:,\">\
         <title>{}</title>{head}</head>\n<body>\n{content}</body></html>\n",
        escape(title)
    )
}

/// A page of text.
pub fn plain(title: &str, content: &str) -> String {
    let head = format!("<style>{STYLE}</style>");
    page(title, &head, &format!("<main>\n{content}</main>\n"))
}

/// The answer with a page of text.
pub fn html(title: &str, content: &str) -> HttpResponse {
    respond_plain(plain(title, content))
}

/// The answer with a page that [`plain`] made.
pub fn respond_plain(page: String) -> HttpResponse {
    respond(&PLAIN, page)
}

/// Text as it stands in markup, between tags or in quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Text of ours with its `code` and its **strong** words marked up.
pub fn marked_up(text: &str) -> String {
    let code = between(&escape(text), "`", "code");
    between(&code, "**", "strong")
}

/// Every second part between these marks, put into that element.
fn between(text: &str, mark: &str, element: &str) -> String {
    let parts = text.split(mark).enumerate();
    parts.fold(String::new(), |mut all, (n, part)| {
        // Writing to a String cannot fail.
        let _ = if n % 2 == 1 {
            write!(all, "<{element}>{part}</{element}>")
        } else {
            all.write_str(part)
        };
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_what_it_stands_in() {
        assert_eq!(
            escape(r#"</a b="c" d='&'>"#),
            "&lt;/a b=&quot;c&quot; d=&#39;&amp;&#39;&gt;"
        );
        let page = plain("</title><script>", "");
        assert!(
            page.contains("<title>&lt;/title&gt;&lt;script&gt;</title>"),
            "{page}"
        );
    }

    #[test]
    fn code_and_strong_words_are_marked_up() {
        assert_eq!(
            marked_up("a **one** of `<b>`"),
            "a <strong>one</strong> of <code>&lt;b&gt;</code>"
        );
    }
}
