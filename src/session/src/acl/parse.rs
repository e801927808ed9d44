//! Reading `acl.conf`: tokens of Erlang terms, and the rules they make.

use super::AclDecision;
use super::rules::{Net, Rule, Topic, Topics, Who};

/// How deep `'and'` and `'or'` may nest. Real files have one or two; the bound keeps the reader's stack small.
const DEPTH_MAX: usize = 16;

/// What is wrong with an ACL file.
#[derive(Clone, Debug, Eq, PartialEq, displaydoc::Display, thiserror::Error)]
pub enum AclError {
    /// line {line}, column {column}: expected {expected}, found {found}
    Unexpected {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What could stand here.
        expected: &'static str,
        /// What stands here.
        found: String,
    },
    /// line {line}, column {column}: {text:?} is no topic filter: {reason}
    BadTopic {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// line {line}, column {column}: {text:?} is no address or net, such as 192.168.0.0/16 or ::1
    BadAddress {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The text.
        text: String,
    },
    /// line {line}, column {column}: 'and' and 'or' may nest 16 deep at most
    TooDeep {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    line: usize,
    column: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
    Dot,
    Atom(String),
    Text(String),
    End,
    /// Anything else, as it is to be named in an error.
    Other(String),
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Token::Open => "{".into(),
            Token::Close => "}".into(),
            Token::OpenList => "[".into(),
            Token::CloseList => "]".into(),
            Token::Comma => ",".into(),
            Token::Dot => "a full stop".into(),
            Token::Atom(name) => name.clone(),
            Token::Text(text) => format!("{text:?}"),
            Token::End => "the end of the file".into(),
            Token::Other(text) => text.clone(),
        }
    }
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    place: Place,
}

impl Lexer<'_> {
    fn bump(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
        } else {
            self.place.column += 1;
        }
        Some(c)
    }

    fn take_if(&mut self, wanted: char) -> bool {
        let found = self.rest.peek() == Some(&wanted);
        if found {
            self.bump();
        }
        found
    }

    fn skip_blank(&mut self) {
        while let Some(&c) = self.rest.peek() {
            if c == '%' {
                while self.rest.peek().is_some_and(|&c| c != '\n') {
                    self.bump();
                }
            } else if c.is_whitespace() || c == '\u{feff}' {
                self.bump();
            } else {
                return;
            }
        }
    }

    fn next_token(&mut self) -> (Place, Token) {
        self.skip_blank();
        let place = self.place;
        let Some(c) = self.bump() else { return (place, Token::End) };
        let token = match c {
            '{' => Token::Open,
            '}' => Token::Close,
            '[' => Token::OpenList,
            ']' => Token::CloseList,
            ',' => Token::Comma,
            '.' => Token::Dot,
            '"' => self.quoted('"').map_or_else(unclosed, Token::Text),
            '\'' => self.quoted('\'').map_or_else(unclosed, Token::Atom),
            '<' => self.binary(),
            'a'..='z' => Token::Atom(self.word(c)),
            'A'..='Z' | '0'..='9' | '_' => Token::Other(self.word(c)),
            _ => Token::Other(format!("{c:?}")),
        };
        (place, token)
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(&c) = self.rest.peek() {
            if !(c.is_ascii_alphanumeric() || c == '_' || c == '@') {
                break;
            }
            word.push(c);
            self.bump();
        }
        word
    }

    /// The text up to the closing quote, with Erlang's escapes; `None` if it never closes.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.bump()? {
                c if c == quote => return Some(text),
                '\\' => text.push(match self.bump()? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    's' => ' ',
                    c => c,
                }),
                c => text.push(c),
            }
        }
    }

    /// `<<"text">>` or `<<"text"/utf8>>`, whose first `<` is taken already.
    fn binary(&mut self) -> Token {
        let wrong = || Token::Other("a < that starts no <<\"text\">>".into());
        if !self.take_if('<') {
            return wrong();
        }
        self.skip_blank();
        if !self.take_if('"') {
            return wrong();
        }
        let Some(text) = self.quoted('"') else { return unclosed() };
        if self.take_if('/') && self.word('/') != "/utf8" {
            return wrong();
        }
        self.skip_blank();
        if self.take_if('>') && self.take_if('>') { Token::Text(text) } else { wrong() }
    }
}

fn unclosed() -> Token {
    Token::Other("a quote that is not closed".into())
}

/// Reads all rules.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, AclError> {
    let lexer = Lexer { rest: text.chars().peekable(), place: Place { line: 1, column: 1 } };
    let mut parser = Parser { lexer, place: Place { line: 1, column: 1 }, token: Token::End };
    parser.advance();
    let mut rules = Vec::new();
    while parser.token != Token::End {
        rules.push(parser.rule()?);
    }
    Ok(rules)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    place: Place,
    token: Token,
}

const WHO: &str =
    "all, \"client id\", {client, _}, {user, _}, {ipaddr, _}, {'and', [_]} or {'or', [_]}";

impl Parser<'_> {
    /// Goes to the next token and gives the one before.
    fn advance(&mut self) -> Token {
        let (place, token) = self.lexer.next_token();
        self.place = place;
        std::mem::replace(&mut self.token, token)
    }

    fn unexpected<T>(&self, expected: &'static str) -> Result<T, AclError> {
        let Place { line, column } = self.place;
        Err(AclError::Unexpected { line, column, expected, found: self.token.describe() })
    }

    fn expect(&mut self, token: &Token, expected: &'static str) -> Result<(), AclError> {
        if self.token != *token {
            return self.unexpected(expected);
        }
        self.advance();
        Ok(())
    }

    /// Takes the atom if it is one that `choose` knows.
    fn atom<T>(
        &mut self,
        expected: &'static str,
        choose: impl Fn(&str) -> Option<T>,
    ) -> Result<T, AclError> {
        let chosen = match &self.token {
            Token::Atom(name) => choose(name),
            _ => None,
        };
        match chosen {
            Some(value) => {
                self.advance();
                Ok(value)
            }
            None => self.unexpected(expected),
        }
    }

    fn text(&mut self, expected: &'static str) -> Result<String, AclError> {
        match self.advance_if_text() {
            Some(text) => Ok(text),
            None => self.unexpected(expected),
        }
    }

    fn advance_if_text(&mut self) -> Option<String> {
        if !matches!(self.token, Token::Text(_)) {
            return None;
        }
        match self.advance() {
            Token::Text(text) => Some(text),
            _ => None,
        }
    }

    fn is_atom(&self, wanted: &str) -> bool {
        matches!(&self.token, Token::Atom(name) if name == wanted)
    }

    fn rule(&mut self) -> Result<Rule, AclError> {
        let line = self.place.line;
        self.expect(&Token::Open, "a rule, which starts with {")?;
        let decision = self.atom("allow or deny", |name| match name {
            "allow" => Some(AclDecision::Allow),
            "deny" => Some(AclDecision::Deny),
            _ => None,
        })?;
        self.expect(&Token::Comma, ", and whom the rule is about")?;
        let may_end = self.is_atom("all");
        let who = self.who(0)?;
        let (publish, subscribe, topics) = if may_end && self.token == Token::Close {
            (true, true, Topics::All)
        } else {
            self.expect(&Token::Comma, ", and publish, subscribe or pubsub")?;
            let (publish, subscribe) =
                self.atom("publish, subscribe or pubsub", |name| match name {
                    "publish" => Some((true, false)),
                    "subscribe" => Some((false, true)),
                    "pubsub" => Some((true, true)),
                    _ => None,
                })?;
            self.expect(&Token::Comma, ", and a list of topics")?;
            (publish, subscribe, Topics::List(self.topics()?))
        };
        self.expect(&Token::Close, "} at the end of the rule")?;
        self.expect(&Token::Dot, "a full stop behind the rule")?;
        Ok(Rule { decision, who, publish, subscribe, topics, line })
    }

    fn who(&mut self, depth: usize) -> Result<Who, AclError> {
        if let Some(id) = self.advance_if_text() {
            return Ok(Who::Client(id.into()));
        }
        if self.is_atom("all") {
            self.advance();
            return Ok(Who::All);
        }
        let Place { line, column } = self.place;
        if depth == DEPTH_MAX {
            return Err(AclError::TooDeep { line, column });
        }
        self.expect(&Token::Open, WHO)?;
        let kind = self.atom("client, user, ipaddr, 'and' or 'or'", |name| {
            matches!(name, "client" | "user" | "ipaddr" | "and" | "or").then(|| name.to_owned())
        })?;
        self.expect(&Token::Comma, ",")?;
        let who = match kind.as_str() {
            "client" | "user" if self.is_atom("all") => {
                self.advance();
                Who::All
            }
            "client" => Who::Client(self.text("a client id in quotes, or all")?.into()),
            "user" => Who::User(self.text("a user name in quotes, or all")?.into()),
            "ipaddr" => self.net()?,
            "and" => Who::And(self.who_list(depth + 1)?),
            _ => Who::Or(self.who_list(depth + 1)?),
        };
        self.expect(&Token::Close, "}")?;
        Ok(who)
    }

    fn who_list(&mut self, depth: usize) -> Result<Vec<Who>, AclError> {
        self.expect(&Token::OpenList, "a list of clients, which starts with [")?;
        // An empty list would fit everybody or nobody; no one means that.
        let mut list = vec![self.who(depth)?];
        while self.token == Token::Comma {
            self.advance();
            list.push(self.who(depth)?);
        }
        self.expect(&Token::CloseList, ", or ] at the end of the list")?;
        Ok(list)
    }

    fn net(&mut self) -> Result<Who, AclError> {
        let Place { line, column } = self.place;
        let text = self.text("an address or net in quotes")?;
        Net::parse(&text).map(Who::Net).ok_or(AclError::BadAddress { line, column, text })
    }

    fn topics(&mut self) -> Result<Vec<Topic>, AclError> {
        const EXPECTED: &str = "a topic filter in quotes or {eq, \"text\"}";
        if self.token != Token::OpenList {
            return Ok(vec![self.topic("a list of topics, which starts with [, or one topic")?]);
        }
        self.advance();
        let mut list = vec![self.topic(EXPECTED)?];
        while self.token == Token::Comma {
            self.advance();
            list.push(self.topic(EXPECTED)?);
        }
        self.expect(&Token::CloseList, ", or ] at the end of the list")?;
        Ok(list)
    }

    fn topic(&mut self, expected: &'static str) -> Result<Topic, AclError> {
        let Place { line, column } = self.place;
        if self.token == Token::Open {
            self.advance();
            self.atom("eq", |name| (name == "eq").then_some(()))?;
            self.expect(&Token::Comma, ",")?;
            let text = self.text("a text in quotes")?;
            self.expect(&Token::Close, "}")?;
            return Ok(Topic::Literal(text.into()));
        }
        let text = self.text(expected)?;
        Topic::compile(&text).map_err(|reason| AclError::BadTopic { line, column, text, reason })
    }
}
