//! Templates as transformers 5.24 renders them: `tests/fixtures/templates.json`, written by `tests/reference/make_templates.py`.

use serde_json::Value;

use super::Template;

#[test]
fn templates_print_what_hugging_face_prints() {
    let table: Value = serde_json::from_str(include_str!("../../../tests/fixtures/templates.json")).expect("the table");
    let special = table["special"].as_object().expect("tokens").clone();
    let questions: Vec<&str> =
        table["questions"].as_array().expect("questions").iter().filter_map(Value::as_str).collect();
    let cases = table["cases"].as_array().expect("cases");
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (template, question) = match &case[0] {
            Value::String(template) => (template.as_str(), questions[0]),
            other => {
                let same = &cases[other.as_u64().expect("a number") as usize][0];
                (same.as_str().expect("a template"), questions[case[2].as_u64().expect("a number") as usize])
            }
        };
        let got = crate::quiet::catch(|| Template::new(template, special.clone()).and_then(|t| t.render(question)));
        let Ok(got) = got else {
            wrong.push(format!("{number}: {template:?} panicked"));
            continue;
        };
        match (case[1].as_str(), got) {
            (Some(expected), Ok(got)) if got == expected => {}
            (None, Err(_)) => {}
            (expected, got) => {
                wrong.push(format!("{number}: {template:?}\n  expected {expected:?}\n  got      {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
