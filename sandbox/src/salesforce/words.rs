//! Words that records are made of: plain ones, and those that break things.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// First names.
pub const FIRST: [&str; 48] = [
    "Rose",
    "Sean",
    "Jack",
    "Pat",
    "Andy",
    "Tim",
    "John",
    "Stella",
    "Lauren",
    "Babara",
    "Josh",
    "Jane",
    "Arthur",
    "Ashley",
    "Tom",
    "Liz",
    "Edna",
    "Avi",
    "Siddartha",
    "Jake",
    "José",
    "Zoë",
    "Françoise",
    "Jürgen",
    "Søren",
    "Łukasz",
    "Ángela",
    "Beyoncé",
    "Nguyễn",
    "Øystein",
    "Ioana",
    "Çağla",
    "Михаил",
    "Ольга",
    "Γιώργος",
    "美咲",
    "健太",
    "伟",
    "지현",
    "محمد",
    "שרה",
    "Anne-Marie",
    "Jean Luc",
    "D'Arcy",
    "Mary Ann",
    "Ö",
    "Þóra",
    "Renée",
];

/// Last names.
pub const LAST: [&str; 48] = [
    "Gonzalez",
    "Forbes",
    "Rogers",
    "Stumuller",
    "Young",
    "Barr",
    "Bond",
    "Pavlova",
    "Boyle",
    "Levy",
    "Davis",
    "Grey",
    "Song",
    "James",
    "Ripley",
    "D'Cruz",
    "Frank",
    "Green",
    "Nedaerk",
    "Llorrac",
    "O'Brien",
    "Müller",
    "Weiß",
    "Strauß",
    "García Márquez",
    "Åström",
    "Şahin",
    "Dvořák",
    "Nowak-Kowalska",
    "de la Cruz",
    "van der Berg",
    "Lefèvre",
    "Núñez",
    "Иванов",
    "Παπαδόπουλος",
    "山田",
    "佐藤",
    "王",
    "김",
    "الفارسي",
    "כהן",
    "McDonald",
    "Smith",
    "Smith-Jones",
    "Null",
    "Test",
    "Ng",
    "Æther",
];

/// First words of company names.
pub const COMPANY: [&str; 40] = [
    "Burlington",
    "Edge",
    "Pyramid",
    "Dickenson",
    "Grand",
    "United",
    "Express",
    "University",
    "GenePoint",
    "Acme",
    "Global",
    "Northern",
    "Société",
    "Müller",
    "Ångström",
    "Œuvre",
    "Señor",
    "Zażółć",
    "Tokyo",
    "東京",
    "Блок",
    "Straße",
    "Blue \"Sky\"",
    "Smith & Sons",
    "100%",
    "A/B",
    "C++",
    "Café",
    "O'Neill",
    "Under_score",
    "Back\\slash",
    "<Tag>",
    "Semi;colon",
    "Comma, Inc",
    "Naïve",
    "Pipe|line",
    "Tab-less",
    "Ünïcödé",
    "🦀 Crab",
    "Ω Omega",
];

/// Second words of company names.
pub const TRADE: [&str; 20] = [
    "Textiles",
    "Communications",
    "Construction",
    "Generators",
    "Hotels",
    "Oil & Gas",
    "Logistics",
    "of Arizona",
    "Networks",
    "Foods",
    "Médias",
    "Maschinenbau",
    "Consulting",
    "Partners",
    "Technologies",
    "Energie",
    "Holding",
    "Labs",
    "Retail",
    "Insurance",
];

/// Legal forms.
pub const FORM: [&str; 10] = [
    "Inc.",
    "LLC",
    "GmbH & Co. KG",
    "S.A.",
    "Ltd",
    "AG",
    "plc",
    "株式会社",
    "Corp",
    "",
];

/// Cities with state, country and postal code.
pub const CITY: [(&str, &str, &str, &str); 16] = [
    ("Austin", "TX", "USA", "78767"),
    ("Burlington", "NC", "USA", "27215"),
    ("San Francisco", "CA", "United States", "94105"),
    ("Portland", "OR", "USA", "97201"),
    ("München", "Bayern", "Germany", "80331"),
    ("Köln", "Nordrhein-Westfalen", "Deutschland", "50667"),
    ("Zürich", "ZH", "Switzerland", "8001"),
    ("Saint-Étienne", "", "France", "42000"),
    ("São Paulo", "SP", "Brazil", "01310-100"),
    ("Kraków", "", "Poland", "31-042"),
    ("東京都", "", "日本", "100-0001"),
    ("London", "", "UK", "SW1A 1AA"),
    ("Reykjavík", "", "Iceland", "101"),
    ("Montréal", "QC", "Canada", "H2Y 1C6"),
    ("Singapore", "", "Singapore", "068808"),
    ("Αθήνα", "", "Greece", "105 57"),
];

/// Streets.
pub const STREET: [&str; 10] = [
    "Constitution Place",
    "Main St",
    "Landmark @ One Market",
    "Königstraße",
    "Rue de l'Église",
    "Av. Paulista",
    "ul. Floriańska",
    "Bahnhofstrasse",
    "Spencer Lane\r\nSuite 300",
    "Elm Street\n2nd floor",
];

/// Job titles.
pub const TITLE: [&str; 12] = [
    "SVP, Procurement",
    "CFO",
    "VP, Facilities",
    "Director, Warehouse Mgmt",
    "Buyer",
    "CEO",
    "Geschäftsführer",
    "Ingénieur en chef",
    "部長",
    "SVP, Operations",
    "Regional General Manager",
    "\"Interim\" CTO",
];

/// Departments.
pub const DEPARTMENT: [&str; 8] = [
    "Procurement",
    "Finance",
    "Facilities",
    "Warehouse Mgmt",
    "Technology",
    "R&D",
    "Entwicklung",
    "営業",
];

/// Subjects of cases.
pub const SUBJECT: [&str; 12] = [
    "Performance inadequate for second consecutive week",
    "Starting generator after electrical failure",
    "Cannot track our order",
    "Generator GC3060 platform structure is weakening",
    "Sample issue",
    "Re: Re: Fwd: Rechnung 4711 – Mahnung",
    "Le générateur fait un bruit étrange 😬",
    "<b>URGENT</b> & broken",
    "製品が届きません",
    "Design issue with mechanical rotor",
    "[EXTERNAL] null",
    "O'Reilly said \"it's fine\"",
];

/// Sentences that descriptions are made of.
const SENTENCE: [&str; 14] = [
    "Edge, founded in 1998, is a start-up based in Austin, TX.",
    "The company sells its product through retailers and its own website.",
    "Der Kunde wünscht eine schnelle Lösung für Straße und Größe.",
    "Le client préfère être contacté l'après-midi, à partir de 14 h.",
    "お客様は来週までに返信を希望しています。",
    "Потребуется согласование с юридическим отделом.",
    "Customer said: \"call me back\" \\ then hung up.",
    "Tabs\tare kept,\tand so are <html> & entities &amp; signs.",
    "Family 👨‍👩‍👧‍👦, flag 🇩🇪, skin tone 👍🏽, face 🙂.",
    "مرحبا بالعالم",
    "e\u{301} is not é, and \u{200b}zero width\u{200b} is still there.",
    "Price: 1.234,56 € (net); 50 % up front; {braces} [brackets] ${VAR}.",
    "'; DROP TABLE contacts; --",
    "Line separator\u{2028}and paragraph separator\u{2029}inside.",
];

/// One of several words.
pub fn one<'a>(rng: &mut StdRng, words: &[&'a str]) -> &'a str {
    words.choose(rng).copied().unwrap_or_default()
}

/// A text of so many sentences, with line ends of both kinds.
pub fn text(rng: &mut StdRng, sentences: usize) -> String {
    let mut text = String::new();
    for at in 0..sentences {
        if at > 0 {
            text.push_str(match rng.random_range(0..6) {
                0 => "\r\n",
                1 => "\n\n",
                _ => " ",
            });
        }
        text.push_str(one(rng, &SENTENCE));
    }
    text
}

/// A text of exactly so many characters.
pub fn long_text(rng: &mut StdRng, length: usize) -> String {
    let mut text = text(rng, length / 15);
    let end = text
        .char_indices()
        .nth(length - 1)
        .map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    let missing = length - text.chars().count();
    text.extend(std::iter::repeat_n('.', missing));
    text
}

/// A name as it stands in an address.
pub fn ascii(name: &str) -> String {
    let plain: String = name
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    if plain.is_empty() {
        "contact".to_owned()
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn long_texts_have_their_length() {
        let mut rng = StdRng::seed_from_u64(1);
        for length in [1, 100, 32_000] {
            let text = long_text(&mut rng, length);
            assert_eq!(text.chars().count(), length);
            assert!(!text.ends_with(char::is_whitespace));
        }
    }
}
