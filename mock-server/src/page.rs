//! The pages that a person sees at a login.

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use crate::answer::Answer;

/// A page with a title and a body of HTML.
pub(crate) fn page(status: StatusCode, title: &str, body: &str) -> Answer {
    let mut answer = Answer::new(status)
        .with(CONTENT_TYPE, "text/html; charset=utf-8")
        .with(CACHE_CONTROL, "no-store")
        .with(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")
        .noting(title);
    answer.body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n\
         </body>\n</html>\n",
        title = escape(title)
    )
    .into();
    answer
}

/// The form in which a person says who they are, and yes or no. What is to come back with it is
/// in `hidden`.
pub(crate) fn decision(title: &str, fields: &str, hidden: &[(&str, &str)]) -> Answer {
    let hidden: String = hidden
        .iter()
        .map(|(name, value)| {
            format!(
                "<input type=\"hidden\" name=\"{}\" value=\"{}\">\n",
                escape(name),
                escape(value)
            )
        })
        .collect();
    let body = format!(
        "<form method=\"post\">\n{hidden}{fields}\
         <label for=\"username\">User name</label>\n\
         <input id=\"username\" name=\"username\" value=\"alice\" required>\n\
         <button id=\"allow\" name=\"decision\" value=\"allow\">Allow</button>\n\
         <button id=\"deny\" name=\"decision\" value=\"deny\">Deny</button>\n</form>"
    );
    page(StatusCode::OK, title, &body)
}

pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;min-height:100vh;display:grid;place-items:center;font:1.1rem/1.5 system-ui,sans-serif}\
main{padding:2rem;max-width:24rem}h1{font-size:1.5rem;margin:0 0 1rem}\
label,input{display:block;width:100%;box-sizing:border-box;font:inherit}\
input{padding:.4rem;margin:.2rem 0 1rem}button{font:inherit;padding:.4rem 1.2rem;margin-right:.5rem}";
