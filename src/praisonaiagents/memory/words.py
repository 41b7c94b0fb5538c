"""Words the rules of extraction know: relatives, pets, jobs, languages, diets, tools and what they are chosen for.

What a reader would get wrong: none of these lists is meant to be complete. A word that is missing costs one fact that is not
noticed; a pattern that does without a list would take every "I'm a bit tired" for a profession.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(word.replace("_", " ") for word in text.split())


RELATIVES = _words(
    "wife husband partner girlfriend boyfriend fiance fiancee fiancé fiancée spouse sister brother mother father mom mum dad"
    " daughter son child grandmother grandfather grandma grandpa aunt uncle cousin niece nephew boss manager"
    " mother-in-law father-in-law sister-in-law brother-in-law stepmother stepfather roommate flatmate best_friend"
)
PETS = tuple(
    "dog cat puppy kitten parrot hamster rabbit horse goldfish turtle tortoise guinea_pig budgie".replace(
        "_", " "
    ).split()
)
DIETS = tuple(_words("vegetarian vegan pescatarian pescetarian gluten-free dairy-free kosher halal keto flexitarian"))
JOBS = _words(
    "engineer developer programmer nurse doctor physician surgeon teacher professor lecturer lawyer attorney architect designer"
    " analyst scientist researcher accountant consultant electrician plumber carpenter chef cook baker waiter waitress barista"
    " journalist writer author editor translator interpreter photographer musician artist actor actress dancer singer pilot"
    " driver farmer gardener dentist veterinarian vet pharmacist psychologist therapist librarian student teacher manager"
    " director ceo cto cfo founder freelancer entrepreneur salesperson recruiter mechanic technician firefighter paramedic"
    " soldier biologist chemist physicist mathematician statistician economist historian geologist astronomer administrator"
    " receptionist secretary midwife tailor painter sculptor plumber welder builder tester admin sysadmin intern trainer coach"
    " midwife bartender butcher hairdresser barber judge policeman policewoman sailor"
)
LANGUAGES = {
    name.lower(): name
    for name in (
        "English German French Spanish Italian Portuguese Dutch Swedish Norwegian Danish Finnish Icelandic Polish Czech Slovak"
        " Hungarian Romanian Bulgarian Greek Turkish Russian Ukrainian Serbian Croatian Slovenian Lithuanian Latvian Estonian"
        " Arabic Hebrew Persian Farsi Hindi Urdu Bengali Punjabi Tamil Telugu Marathi Gujarati Thai Vietnamese Indonesian Malay"
        " Tagalog Chinese Mandarin Cantonese Japanese Korean Swahili Amharic Yoruba Zulu Afrikaans Catalan Basque Galician Irish"
        " Welsh Latin Esperanto Catalan Albanian Georgian Armenian"
    ).split()
}
NATIONS = frozenset(LANGUAGES) | _words(
    "american canadian mexican brazilian austrian swiss belgian indian british scottish australian african european asian"
    " egyptian iranian israeli pakistani filipino nigerian kenyan catholic christian muslim jewish hindu buddhist atheist"
    " sorry ok okay fine good great back here happy glad ready curious new not so very sure done monday tuesday wednesday"
    " thursday friday saturday sunday"
)
CATEGORIES = {
    tool: category
    for category, tools in {
        "database": "postgresql postgres mysql mariadb sqlite mongodb redis cassandra dynamodb oracle cockroachdb duckdb",
        "web framework": "fastapi django flask starlette rails express spring laravel",
        "frontend": "react vue angular svelte solid htmx",
        "language": "python rust go java kotlin typescript javascript ruby elixir scala c# c++ php swift",
        "cloud": "aws azure gcp heroku",
        "queue": "kafka rabbitmq nats sqs celery",
        "editor": "vim neovim emacs vscode helix pycharm",
        "orchestration": "kubernetes nomad",
        "infrastructure": "terraform pulumi ansible",
        "ci": "jenkins circleci",
    }.items()
    for tool in tools.split()
}
TOOLS = frozenset(CATEGORIES) | _words(
    "dbt git docker linux windows macos ubuntu debian pandas numpy pytorch tensorflow airflow excel notion obsidian slack bash"
    " zsh fish tmux postgres sql r julia matlab latex markdown vs_code"
)
