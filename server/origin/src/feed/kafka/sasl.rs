//! Signing in by SASL: PLAIN (RFC 4616), and SCRAM (RFC 5802) with SHA-256 or SHA-512, in which the broker proves itself, too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};

use super::config::{KafkaLogin, KafkaMechanism};

/// Rounds that a server may ask for; each costs us time.
const MAX_ROUNDS: u32 = 1 << 20;

/// A conversation.
pub(super) struct Sasl<'l> {
    login: &'l KafkaLogin,
    nonce: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Begun,
    /// SCRAM's first message was sent.
    First,
    /// SCRAM's last message was sent; the broker is to show this.
    Last(Vec<u8>),
    Done,
}

impl<'l> Sasl<'l> {
    pub(super) fn new(login: &'l KafkaLogin) -> Self {
        let nonce = BASE64.encode(rand::random::<[u8; 18]>());
        Sasl { login, nonce, state: State::Begun }
    }

    /// What is to be sent after the broker has said `told`; `None` when all was said.
    ///
    /// # Errors
    /// In words, when the broker does not follow the protocol or does not know the password.
    pub(super) fn step(&mut self, told: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let KafkaLogin { mechanism, user, password } = self.login;
        match (std::mem::replace(&mut self.state, State::Done), mechanism) {
            (State::Begun, KafkaMechanism::Plain) => Ok(Some(format!("\0{user}\0{password}").into_bytes())),
            (State::Begun, _) => {
                self.state = State::First;
                Ok(Some(format!("n,,{}", self.first_bare()).into_bytes()))
            }
            (State::First, KafkaMechanism::ScramSha256) => self.finish::<Sha256, Hmac<Sha256>>(told).map(Some),
            (State::First, _) => self.finish::<Sha512, Hmac<Sha512>>(told).map(Some),
            (State::Last(expected), _) => {
                let shown = String::from_utf8_lossy(told);
                let shown = attribute(&shown, 'v').and_then(|text| BASE64.decode(text).ok());
                match shown == Some(expected) {
                    true => Ok(None),
                    false => Err("the broker does not know the user's password".to_owned()),
                }
            }
            (State::Done, _) => Ok(None),
        }
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", self.login.user.replace('=', "=3D").replace(',', "=2C"), self.nonce)
    }

    fn finish<H: Digest, M: Mac + KeyInit>(&mut self, told: &[u8]) -> Result<Vec<u8>, String> {
        let told = std::str::from_utf8(told).map_err(|_| "the broker does not follow SCRAM".to_owned())?;
        let asked = Asked::read(told, &self.nonce).ok_or("the broker does not follow SCRAM")?;
        let salted = stretch::<M>(self.login.password.as_bytes(), &asked.salt, asked.rounds);
        let client_key = sign::<M>(&salted, &[b"Client Key"]);
        let without_proof = format!("c=biws,r={}", asked.nonce);
        let all = format!("{},{told},{without_proof}", self.first_bare());
        let signature = sign::<M>(&H::digest(&client_key), &[all.as_bytes()]);
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, sign)| key ^ sign).collect();
        self.state = State::Last(sign::<M>(&sign::<M>(&salted, &[b"Server Key"]), &[all.as_bytes()]));
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes())
    }
}

/// What the broker says first.
struct Asked<'t> {
    nonce: &'t str,
    salt: Vec<u8>,
    rounds: u32,
}

impl<'t> Asked<'t> {
    fn read(told: &'t str, ours: &str) -> Option<Self> {
        let nonce = attribute(told, 'r').filter(|nonce| nonce.starts_with(ours) && nonce.len() > ours.len())?;
        let salt = BASE64.decode(attribute(told, 's')?).ok()?;
        let rounds = attribute(told, 'i')?.parse().ok().filter(|rounds| (1..=MAX_ROUNDS).contains(rounds))?;
        Some(Asked { nonce, salt, rounds })
    }
}

fn attribute(told: &str, name: char) -> Option<&str> {
    told.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// PBKDF2 (RFC 8018), of which one block is wanted.
fn stretch<M: Mac + KeyInit>(password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
    let mut round = sign::<M>(password, &[salt, &[0, 0, 0, 1]]);
    let mut all = round.clone();
    for _ in 1..rounds {
        round = sign::<M>(password, &[&round]);
        all.iter_mut().zip(&round).for_each(|(all, round)| *all ^= round);
    }
    all
}

fn sign<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let Ok(mut mac) = <M as Mac>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length");
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(mechanism: KafkaMechanism) -> KafkaLogin {
        KafkaLogin { mechanism, user: "user".into(), password: "pencil".into() }
    }

    #[test]
    fn scram_is_as_in_its_specification() {
        // RFC 7677, section 3.
        let login = login(KafkaMechanism::ScramSha256);
        let mut sasl = Sasl { nonce: "rOprNGfwEbeRWgbNEkqO".into(), ..Sasl::new(&login) };
        assert_eq!(sasl.step(b"").unwrap().unwrap(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let told = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8(sasl.step(told).unwrap().unwrap()).unwrap(), expected);
        assert_eq!(sasl.step(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(None));
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_found_out() {
        for mechanism in [KafkaMechanism::ScramSha256, KafkaMechanism::ScramSha512] {
            let login = login(mechanism);
            let mut sasl = Sasl::new(&login);
            sasl.step(b"").unwrap();
            sasl.step(format!("r={}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1", sasl.nonce).as_bytes()).unwrap();
            assert!(sasl.step(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").is_err());
            for told in ["", "r=other,s=W22Z,i=1", "r=,s=,i=", "i=4000000000"] {
                let mut sasl = Sasl::new(&login);
                sasl.step(b"").unwrap();
                assert!(sasl.step(told.as_bytes()).is_err(), "{told}");
            }
        }
        let login = login(KafkaMechanism::Plain);
        let mut plain = Sasl::new(&login);
        assert_eq!(plain.step(b""), Ok(Some(b"\0user\0pencil".to_vec())));
        assert_eq!(plain.step(b""), Ok(None));
    }
}
