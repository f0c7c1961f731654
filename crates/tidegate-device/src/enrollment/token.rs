//! The secret that a device shows once, for its first certificate.

use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Longest token; those that Tidegate makes are shorter.
pub const MAX_TOKEN_BYTES: usize = 256;

/// The text cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing, or only spaces.
    #[error("the token is empty")]
    Empty,
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token has {0} bytes; {MAX_TOKEN_BYTES} are allowed")]
    TooLong(usize),
    /// Something was copied with it.
    #[error("the token has a character that no token has: copy it again, without the text around it")]
    Character,
}

/// A token. Wiped when dropped; no output shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// A token from text, as it was shown or read from a file: white space around it is taken off.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Character);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::new(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_taken_without_the_white_space_around_it_and_not_shown() {
        let token = Token::new(" secret-1\n").unwrap();
        assert_eq!(token.expose(), "secret-1");
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn empty_long_and_foreign_text_is_no_token_and_is_not_repeated() {
        assert_eq!(Token::new(" \n"), Err(TokenError::Empty));
        let longest = "x".repeat(MAX_TOKEN_BYTES);
        assert!(Token::new(&longest).is_ok());
        assert_eq!(
            Token::new(&format!("{longest}x")),
            Err(TokenError::TooLong(MAX_TOKEN_BYTES + 1))
        );
        for text in ["two words", "caf\u{e9}", "a\u{7}b"] {
            let refused = Token::new(text).unwrap_err();
            assert_eq!(refused, TokenError::Character);
            assert!(!refused.to_string().contains(text));
        }
    }
}
