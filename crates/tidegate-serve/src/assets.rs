//! The built page inside the binary: which file answers which path, and how long it may be kept.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};
use std::fmt::Write;

/// What `npm run build` wrote; `build.rs` puts a placeholder there when nobody ran it.
#[derive(RustEmbed)]
#[folder = "../../web/dist"]
struct Page;

/// Files here carry a hash of their content in their names, so a browser may keep them for ever.
const HASHED: &str = "assets/";
/// Encodings of precompressed files, the better one first.
const ENCODINGS: [(&str, &str); 2] = [("br", "br"), ("gzip", "gz")];

/// The paths of the page; which view stands behind one, the page itself knows.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    answer("index.html", &headers)
}

/// Every other file, by its exact name in the binary. There is no file system behind it that a
/// path could climb.
pub(crate) async fn asset(request: Request) -> Response {
    answer(request.uri().path().trim_start_matches('/'), request.headers())
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Page::get(name).filter(|_| !is_compressed(name)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = content_type(&file);
    let (file, encoding) = compressed(name, headers).map_or((file, None), |(file, name)| (file, Some(name)));
    let tag = entity_tag(&file);
    let unchanged = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(file.data))
    };
    let keep = if name.starts_with(HASHED) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Ok(kind) = HeaderValue::try_from(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

fn content_type(file: &EmbeddedFile) -> String {
    let kind = file.metadata.mimetype();
    let is_text = kind.starts_with("text/") || matches!(kind, "application/json" | "image/svg+xml");
    if is_text {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_owned()
    }
}

/// The precompressed neighbour of a file, where there is one that the browser takes.
fn compressed(name: &str, headers: &HeaderMap) -> Option<(EmbeddedFile, &'static str)> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    let takes = |encoding| {
        accepted.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            parts.next() == Some(encoding) && !parts.any(|part| part == "q=0")
        })
    };
    let mut encodings = ENCODINGS.into_iter().filter(|(encoding, _)| takes(encoding));
    encodings.find_map(|(encoding, ending)| Some((Page::get(&format!("{name}.{ending}"))?, encoding)))
}

fn is_compressed(name: &str) -> bool {
    ENCODINGS
        .iter()
        .any(|(_, ending)| name.rsplit_once('.').is_some_and(|(_, last)| last == *ending))
}

/// The start of the content's SHA-256, quoted (RFC 9110 §8.8.3).
fn entity_tag(file: &EmbeddedFile) -> String {
    let mut tag = String::from("\"");
    for byte in &file.metadata.sha256_hash()[..12] {
        // Writing to a string cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(response: &Response, name: header::HeaderName) -> &str {
        response
            .headers()
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn every_file_of_the_page_is_served_with_its_type() {
        assert!(Page::get("index.html").is_some());
        for name in Page::iter().filter(|name| !is_compressed(name)) {
            let response = answer(&name, &HeaderMap::new());
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            assert_eq!(header_of(&response, header::CONTENT_ENCODING), "", "{name}");
            assert!(!header_of(&response, header::ETAG).is_empty(), "{name}");
            let kind = header_of(&response, header::CONTENT_TYPE);
            match name.rsplit_once('.').map(|(_, ending)| ending) {
                Some("js") => assert_eq!(kind, "text/javascript; charset=utf-8"),
                Some("css") => assert_eq!(kind, "text/css; charset=utf-8"),
                Some("html") => assert_eq!(kind, "text/html; charset=utf-8"),
                Some("svg") => assert_eq!(kind, "image/svg+xml; charset=utf-8"),
                _ => assert!(!kind.is_empty(), "{name}"),
            }
            let kept_for_ever = header_of(&response, header::CACHE_CONTROL).contains("immutable");
            assert_eq!(kept_for_ever, name.starts_with(HASHED), "{name}");
        }
    }

    #[test]
    fn precompressed_neighbour_is_sent_to_whoever_takes_it_and_never_by_its_own_name() {
        for name in Page::iter().filter(|name| is_compressed(name)) {
            assert_eq!(answer(&name, &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
        }
        for name in Page::iter().filter(|name| Page::get(&format!("{name}.br")).is_some()) {
            let with = |accepted: &'static str| {
                let mut headers = HeaderMap::new();
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted));
                header_of(&answer(&name, &headers), header::CONTENT_ENCODING).to_owned()
            };
            assert_eq!(with("gzip, deflate, br"), "br");
            assert_eq!(with("br;q=0"), "");
        }
    }
}
