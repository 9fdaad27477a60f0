"""The sixteen task types: a table, and the looking-up of a name."""

from __future__ import annotations

from importlib import metadata

from katsuo.registry import unknown_name
from katsuo.tasks import checks
from katsuo.tasks.shapes import (
    OPTION_LINES,
    QUESTION,
    SECOND_USE,
    STATEMENT,
    TOPIC,
    TOPICS,
    WORD_FOR_WORD,
    YES_NO_QUESTION,
    Frame,
    Labels,
    Options,
    Span,
    Text,
    Whole,
)
from katsuo.tasks.task_type import TaskType, Worked

_YES_NO = (("yes", "no"), ("true", "false"))
_NLI = (
    ("yes", "no", "maybe"),
    ("true", "false", "neither"),
    ("true", "false", "inconclusive"),
    ("correct", "incorrect", "inconclusive"),
    ("always", "never", "sometimes"),
    ("guaranteed", "impossible", "possible"),
    ("entailment", "contradiction", "neutral"),
)
_SENTIMENT = (
    ("positive", "negative"),
    ("positive", "negative", "neutral"),
    ("yes", "no"),
    ("good", "bad"),
    ("satisfied", "dissatisfied"),
    ("increase", "decrease"),
    ("flattering", "unflattering"),
)
_SAME = (("yes", "no"), ("true", "false"), ("equivalent", "not equivalent"), ("duplicates", "not duplicates"))
_FORM = (checks.refers_to_passage, checks.not_copied)
_GROUNDED = (*_FORM, checks.about_passage)

_BRIDGE = (
    "The old bridge over the river Tamar opened in 1932. It was designed by Ruth Ellery, and repairs to its "
    "steel deck began in March 2015."
)
_POLICY = (
    "Employees may work from home on two days a week. A request must be sent to the team lead at least five days "
    "ahead. Laptops remain the property of the company."
)

CATALOG: tuple[TaskType, ...] = (
    TaskType(
        name="extractive question answering",
        short="exqa",
        description="Ask a question whose answer stands word for word in the passage, and give that span.",
        answer=Span(),
        checks=(*_GROUNDED, checks.answer_in_passage, checks.not_given_away),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nQuestion: Who designed the bridge over the Tamar?\nAnswer:",
                "Ruth Ellery",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nQuestion: How early must a request to work from home be sent?\nAnswer:",
                "at least five days ahead",
            ),
        ),
        frame=Frame("{{context}}\n\nQuestion: ", QUESTION, "\nAnswer:"),
    ),
    TaskType(
        name="multiple-choice question answering",
        short="mcqa",
        description="Ask a question about the passage, list options as lines that start with A., B., C., and give the right one.",
        answer=Options(),
        checks=(*_GROUNDED, checks.answer_an_option),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nWhat began in March 2015?\nA. the design of the bridge\nB. repairs to the steel deck\nC. the opening of the bridge",
                "repairs to the steel deck",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nWho owns the laptops?\nA. the company\nB. the employees\nC. the team lead",
                "the company",
            ),
        ),
        frame=Frame("{{context}}\n\n", QUESTION + OPTION_LINES),
    ),
    TaskType(
        name="question generation",
        short="qg",
        description="Ask for a question about the passage, and give that question.",
        answer=Text(max_chars=300),
        checks=(*_FORM, checks.response_about_passage),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nWrite a question about the text above.",
                "When did repairs to the steel deck of the bridge begin?",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nWrite a question about the text above.",
                "On how many days a week may employees work from home?",
            ),
        ),
        frame=Frame("{{context}}\n\nWrite a question about the text above."),
    ),
    TaskType(
        name="question answering without choices",
        short="qa",
        description="Ask an open question about the passage, and answer it in a few words of your own.",
        answer=Text(max_chars=300),
        checks=(*_GROUNDED, checks.not_given_away),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nQuestion: What happened to the bridge in 2015?\nAnswer:",
                "Its steel deck was repaired.",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nQuestion: What happens to a laptop when its user leaves?\nAnswer:",
                "It goes back to the company, which owns it.",
            ),
        ),
        frame=Frame("{{context}}\n\nQuestion: ", QUESTION, "\nAnswer:"),
    ),
    TaskType(
        name="yes-no question answering",
        short="ynqa",
        description="Ask a question about the passage that is answered with yes or no, and answer it.",
        answer=Labels(_YES_NO),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nQuestion: Did the bridge over the Tamar open before 1950? Yes or no?",
                "Yes",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nQuestion: May employees keep their laptops? Yes or no?",
                "No",
            ),
        ),
        frame=Frame("{{context}}\n\nQuestion: ", YES_NO_QUESTION, " Yes or no?"),
    ),
    TaskType(
        name="coreference resolution",
        short="coref",
        description="Ask whether a word in the passage stands for somebody or something named in it, and answer.",
        answer=Labels(_YES_NO),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                _BRIDGE,
                '{{context}}\n\nIn the text above, does "It" stand for the bridge? Yes or no?',
                "Yes",
            ),
            Worked(
                "Tom thanked Ann because she had mended his bicycle.",
                '{{context}}\n\nIn the text above, does "she" stand for Tom? Yes or no?',
                "No",
            ),
        ),
        frame=Frame("{{context}}\n\nIn the text above, does ", WORD_FOR_WORD, "? Yes or no?"),
    ),
    TaskType(
        name="paraphrase generation",
        short="paraphrase",
        description="Ask for the passage, or one sentence of it, in other words, and give them.",
        answer=Text(),
        checks=(*_FORM, checks.response_about_passage),
        examples=(
            Worked(
                "Repairs to the bridge began in March 2015.",
                "Say the following in other words: {{context}}",
                "Work to mend the bridge started in March 2015.",
            ),
            Worked(
                "A request must be sent five days ahead.",
                "Say the following in other words: {{context}}",
                "Requests have to arrive five days in advance.",
            ),
        ),
        frame=Frame("Say the following in other words: {{context}}"),
    ),
    TaskType(
        name="paraphrase identification",
        short="paraphrase_id",
        description="Give a second sentence and ask whether it means the same as the passage.",
        answer=Labels(_SAME),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                "Repairs to the bridge began in March 2015.",
                "Sentence 1: {{context}}\nSentence 2: Work to mend the bridge started in March 2015.\nDo they mean the same thing? Yes or no?",
                "Yes",
            ),
            Worked(
                "A request must be sent five days ahead.",
                "Sentence 1: {{context}}\nSentence 2: A request can be sent on the same day.\nDo they mean the same thing? Yes or no?",
                "No",
            ),
        ),
        frame=Frame("Sentence 1: {{context}}\nSentence 2: ", STATEMENT, "\nDo they mean the same thing? Yes or no?"),
    ),
    TaskType(
        name="sentence completion",
        short="sent_comp",
        description="Take the passage as a beginning and ask how it goes on; give the continuation.",
        answer=Options(is_required=False),
        checks=(*_FORM,),
        examples=(
            Worked(
                "The engineers closed the bridge because",
                "How does this go on?\n{{context}}",
                "its steel deck had rusted through.",
            ),
            Worked(
                "She sent the request too late, so",
                "How does this go on?\n{{context}}",
                "her team lead turned it down.",
            ),
        ),
        frame=Frame("How does this go on?\n{{context}}"),
    ),
    TaskType(
        name="sentiment",
        short="sentiment",
        description="Ask which feeling or judgement the passage expresses, and answer.",
        answer=Labels(_SENTIMENT),
        checks=(*_FORM, checks.answer_in_labels),
        examples=(
            Worked(
                "The staff were kind and the soup was the best I ever had.",
                "{{context}}\nIs this text positive or negative?",
                "positive",
            ),
            Worked(
                "The screen broke after two days and nobody answered my letters.",
                "{{context}}\nIs this text positive or negative?",
                "negative",
            ),
        ),
        frame=Frame("{{context}}\nIs this text positive or negative?"),
    ),
    TaskType(
        name="summarization",
        short="summarization",
        description="Ask for a summary of the passage, and give one.",
        answer=Text(),
        checks=(*_FORM, checks.response_about_passage),
        examples=(
            Worked(
                _BRIDGE,
                "Summarise the following text in one sentence:\n\n{{context}}",
                "The Tamar bridge by Ruth Ellery opened in 1932 and has been under repair since 2015.",
            ),
            Worked(
                _POLICY,
                "Summarise the following text in one sentence:\n\n{{context}}",
                "Staff may work from home twice a week if they ask five days ahead; laptops stay company property.",
            ),
        ),
        frame=Frame("Summarise the following text in one sentence:\n\n{{context}}"),
    ),
    TaskType(
        name="text generation",
        short="text_gen",
        description="Ask for a text like the passage from a few of its facts; the response is the passage.",
        answer=Whole(),
        checks=(*_GROUNDED, checks.is_whole_passage),
        examples=(
            Worked(
                _BRIDGE,
                "Write a short text about a bridge that Ruth Ellery designed.",
                "{{context}}",
            ),
            Worked(
                _POLICY,
                "Write a short text about working from home and laptops of the company.",
                "{{context}}",
            ),
        ),
        frame=Frame("Write a short text about ", TOPIC, "."),
    ),
    TaskType(
        name="topic classification",
        short="topic_class",
        description="Ask what the passage is about, listing possible topics, and give the right one.",
        answer=Options(is_required=False),
        checks=(*_FORM,),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nWhich topic fits this text? Choose one of: engineering, sports, cooking",
                "engineering",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nWhich topic fits this text? Choose one of: travel, rules at work, music",
                "rules at work",
            ),
        ),
        frame=Frame("{{context}}\n\nWhich topic fits this text? Choose one of: ", TOPICS),
    ),
    TaskType(
        name="word sense disambiguation",
        short="wsd",
        description="Take a word of the passage and a second sentence with it, and ask whether it means the same in both.",
        answer=Labels(_YES_NO),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                "The bank of the river was steep.",
                '{{context}}\nShe put her savings into the bank.\nDoes "bank" mean the same in both sentences? Yes or no?',
                "No",
            ),
            Worked(
                "He drew a line under the word.",
                '{{context}}\nThe child drew a line on the wall.\nDoes "line" mean the same in both sentences? Yes or no?',
                "Yes",
            ),
        ),
        frame=Frame("{{context}}\n", SECOND_USE, " mean the same in both sentences? Yes or no?"),
    ),
    TaskType(
        name="textual entailment",
        short="te",
        description="Write a statement and ask whether it follows from the passage; answer yes or no, or true or false.",
        answer=Labels(_YES_NO),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nStatement: Ruth Ellery built ships.\nDoes it follow from the text? Yes or no?",
                "No",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nStatement: Laptops belong to the company.\nDoes it follow from the text? Yes or no?",
                "Yes",
            ),
        ),
        frame=Frame("{{context}}\n\nStatement: ", STATEMENT, "\nDoes it follow from the text? Yes or no?"),
    ),
    TaskType(
        name="natural language inference",
        short="nli",
        description="Write a statement and ask whether the passage makes it true, makes it false, or leaves it open.",
        answer=Labels(_NLI),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nStatement: The bridge is younger than ten years.\nIs it true? Yes, no, or maybe?",
                "No",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nStatement: Most employees ask for two days a week.\nIs it true? Yes, no, or maybe?",
                "Maybe",
            ),
        ),
        frame=Frame("{{context}}\n\nStatement: ", STATEMENT, "\nIs it true? Yes, no, or maybe?"),
    ),
)


def known_tasks() -> dict[str, TaskType]:
    """Give every task type by its full and its short name; packages add theirs as `katsuo.tasks` entry points."""
    added = [entry.load() for entry in metadata.entry_points(group="katsuo.tasks")]
    return {key: task for task in (*CATALOG, *added) for key in (task.name, task.short)}


def find_task(name: str) -> TaskType:
    """Give the task type of a full or short name; raise `UnknownNameError` with the nearest known one."""
    tasks = known_tasks()
    if name not in tasks:
        raise unknown_name("task type", name, tasks)
    return tasks[name]
