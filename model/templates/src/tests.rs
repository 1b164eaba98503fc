//! Compared with what transformers renders: tests/reference/make_templates.py.

use serde_json::Value as Json;

use super::{
    ChatTemplate, Content, Message, Part,
    clock::Moment,
    strftime::strftime,
    text::{casefold, swapcase, title},
};

fn fixture() -> Json {
    serde_json::from_str(include_str!("../../../tests/fixtures/templates.json")).unwrap()
}

fn render(template: &str, question: &str) -> Result<String, String> {
    let special = fixture()["special"].as_object().unwrap().clone();
    let template = ChatTemplate::new(template.to_owned(), special).map_err(|e| e.to_string())?;
    let question = Message { role: "user", content: Content::Parts(vec![Part::Image, Part::Text(question)]) };
    template.render(&[question], true).map_err(|e| e.to_string())
}

#[test]
fn renders_as_transformers_does() {
    let fixture = fixture();
    let cases = fixture["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let template =
            case[0].as_str().or_else(|| cases[usize::try_from(case[0].as_u64()?).ok()?][0].as_str()).unwrap();
        let question = case[2].as_u64().map_or(0, |number| usize::try_from(number).unwrap());
        let got = render(template, fixture["questions"][question].as_str().unwrap());
        if got.as_deref().ok() != case[1].as_str() {
            wrong.push(format!("{template}\n  expected {:?}\n  got      {got:?}", case[1].as_str()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn prints_times_as_python_does() {
    for case in fixture()["times"].as_array().unwrap() {
        let part = |i: usize| case[1][i].as_i64().unwrap();
        let moment = Moment {
            year: part(0),
            month: part(1),
            day: part(2),
            hour: part(3),
            minute: part(4),
            second: part(5),
            microsecond: part(6),
        };
        assert_eq!(strftime(case[0].as_str().unwrap(), &moment).unwrap(), case[2].as_str().unwrap(), "{case}");
    }
}

#[test]
fn changes_letters_as_python_does() {
    let fixture = fixture();
    let letters = fixture["letters"].as_str().unwrap();
    for (i, c) in letters.chars().map(String::from).enumerate() {
        let got = [
            ("upper", c.to_uppercase()),
            ("lower", c.to_lowercase()),
            ("title", title(&c)),
            ("casefold", casefold(&c)),
            ("swapcase", swapcase(&c)),
        ];
        for (name, got) in got {
            assert_eq!(got, fixture["forms"][name][i].as_str().unwrap(), "{name} of {c}");
        }
    }
}

/// Templates that try to run for ever, or to take all memory or stack.
#[test]
fn bounds_what_a_template_takes() {
    let nested = |open: &str, close: &str, times: usize| open.repeat(times) + "x" + &close.repeat(times);
    let templates = [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(),
        "{% macro f() %}{% for i in [1] %}{% filter upper %}{{ [f()] }}{% endfilter %}{% endfor %}{% endmacro %}{{ f() }}".into(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into(),
        "{% set n = namespace() %}{% set n.n = n %}{{ n }}".into(),
        "{% set n = namespace(a=[]) %}{% for i in range(1000) %}{% set n.a = [n.a] %}{% endfor %}".into(),
        "{% set n = namespace(a='a') %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}".into(),
        "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = n.a + n.a %}{% endfor %}".into(),
        "{% set n = namespace(a=[1]) %}{% for i in range(50) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a }}".into(),
        "{% set n = namespace(a=[1]) %}{% for i in range(50) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a == n.a + [] }}".into(),
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".into(),
        "{% for i in range(9000) %}{{ 'a' * 1000 }}{% endfor %}".into(),
        "{{ 'a' * 9223372036854775807 }}".into(),
        "{{ [1] * 9223372036854775807 }}".into(),
        "{{ 'a'.center(9223372036854775807) }}".into(),
        "{{ 'a' | indent(9223372036854775807) }}".into(),
        "{{ '%999999999d' % 1 }}".into(),
        "{{ '{:999999999}'.format(1) }}".into(),
        "{{ [[]] | tojson(indent=9223372036854775807) }}".into(),
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}".into(),
        "{{ strftime_now('%999999999d') }}".into(),
        "{{ range(90000) | unique | list | length }}".into(),
        "{{ loop.cycle() }}{% for i in [1] %}{{ loop.cycle() }}{% endfor %}".into(),
        "{{ -9223372036854775807 - 2 }}".into(),
        "{{ (-9223372036854775807 - 1) // -1 }}".into(),
        "{{ ".to_owned() + &nested("(", ")", 1000) + " }}",
        "{{ ".to_owned() + &nested("[", "]", 1000) + " }}",
        "{{ ".to_owned() + &"not ".repeat(1000) + "x }}",
        "{{ ".to_owned() + &"-".repeat(1000) + "1 }}",
        nested("{% if 1 %}", "{% endif %}", 1000),
        nested("{% generation %}", "{% endgeneration %}", 1000),
        "x".repeat(super::LONGEST_TEMPLATE + 1),
    ];
    for template in templates {
        let start: String = template.chars().take(80).collect();
        assert!(render(&template, "?").is_err(), "{start}");
    }
    // Long, and still nothing deep.
    for (chain, ends) in [("1 + ", "1"), ("1 ~ ", "1"), ("'a' ", "'a'"), ("1 or ", "1"), ("1 < ", "1")] {
        let template = "{{ ".to_owned() + &chain.repeat(10_000) + ends + " }}";
        assert!(render(&template, "?").is_ok(), "{chain}");
    }
    let chain = "{% set n = namespace() %}{% for i in range(50000) %}{% set n.n = namespace(n=n.n) %}{% endfor %}";
    assert_eq!(render(chain, "?").as_deref(), Ok(""));
}

#[test]
fn says_what_the_template_says() {
    let error = render("a\n{{ raise_exception('only ' ~ 2 ~ ' turns') }}", "?").unwrap_err();
    assert!(error.ends_with("the template raised an error: only 2 turns (line 2)"), "{error}");
}

#[test]
fn can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<ChatTemplate>();
}
