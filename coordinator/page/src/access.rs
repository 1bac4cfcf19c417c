//! Who may look at the page, and whether it may change anything.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use subtle::ConstantTimeEq as _;

/// How many characters a token has at least: then nobody finds it by trying.
pub const MIN_TOKEN: usize = 32;
/// How long a browser stays logged in.
pub(crate) const LOGIN: Duration = Duration::from_secs(14 * 86_400);
/// Separates the keys of logins from all other uses of the token.
const CONTEXT: &str = "halfheard 2026 logins of the coordinator's page";

/// How a request shows that it may be answered.
#[derive(Debug, Default)]
pub enum Proof {
    /// Nothing is asked: the server listens on loopback only.
    #[default]
    Loopback,
    /// A bearer token, in the header or, for browsers, in a cookie after a form.
    Token(Token),
    /// A reverse proxy names the user in this header. It must not let clients set it.
    UserHeader(String),
}

/// Who may look, and whether the page may change anything.
#[derive(Debug, Default)]
pub struct Access {
    /// How a request shows that it may be answered.
    pub proof: Proof,
    /// Whether the page has buttons that pause, resume, retry and drain.
    pub control: bool,
}

/// A bearer token, as a hash: what is compared takes the same time whatever is guessed.
pub struct Token {
    hash: blake3::Hash,
    /// The key of logins. They outlive a restart, and hold on every coordinator with this token.
    logins: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token in `text`, which may have white space around it; `None` if it is shorter than
    /// [`MIN_TOKEN`] or holds other characters than visible ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let token = text.trim();
        let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
        (token.len() >= MIN_TOKEN && visible).then(|| Self {
            hash: blake3::hash(token.as_bytes()),
            logins: blake3::derive_key(CONTEXT, token.as_bytes()),
        })
    }

    /// Whether `guess` is the token.
    pub(crate) fn is(&self, guess: &str) -> bool {
        let guess = blake3::hash(guess.trim().as_bytes());
        self.hash.as_bytes().ct_eq(guess.as_bytes()).into()
    }

    /// The value of a cookie that shows until `until` that its browser knew the token.
    pub(crate) fn login(&self, until: SystemTime) -> String {
        let until = seconds(until);
        format!("{until}.{}", self.sign(until).to_hex())
    }

    /// Whether a cookie's value was made by [`Self::login`] and still holds.
    pub(crate) fn knows(&self, login: &str, now: SystemTime) -> bool {
        let Some((until, signature)) = login.split_once('.') else {
            return false;
        };
        let Ok(until) = until.parse::<u64>() else {
            return false;
        };
        let expected = self.sign(until).to_hex();
        let same: bool = expected.as_bytes().ct_eq(signature.as_bytes()).into();
        same && until > seconds(now)
    }

    fn sign(&self, until: u64) -> blake3::Hash {
        blake3::keyed_hash(&self.logins, &until.to_le_bytes())
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn token_is_long_and_shown_nowhere() {
        assert!(Token::new("short").is_none());
        assert!(Token::new(&TEXT.replace('0', " ")).is_none());
        let token = Token::new(&format!(" {TEXT}\n")).unwrap();
        assert!(token.is(TEXT) && !token.is(&TEXT[1..]) && !token.is(""));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn login_holds_until_its_end_for_its_token_only() {
        let token = Token::new(TEXT).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let login = token.login(now + LOGIN);
        assert!(token.knows(&login, now));
        assert!(!login.contains(TEXT));
        assert!(!token.knows(&login, now + LOGIN));
        let later = login.replacen("1210600", "9210600", 1);
        assert!(later != login && !token.knows(&later, now), "{login}");
        let other = Token::new(&TEXT.replace('0', "f")).unwrap();
        assert!(!other.knows(&login, now));
        for bad in ["", ".", "x.y", "9999999999."] {
            assert!(!token.knows(bad, now), "{bad}");
        }
    }
}
