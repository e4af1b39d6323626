"""Cross-validation on the command line: data.folds=K expands to K runs, one for each held-out fold."""


def expand_folds(args: list[str]) -> list[str]:
    """The arguments with the study of folds, where data.folds is typed and no fold; check=true looks at the first fold.

    >>> expand_folds(["task=single", "data.folds=5"])
    ['task=single', 'data.folds=5', '+study=folds', '--multirun']
    >>> expand_folds(["data.folds=3", "+study=seeds", "-m"])
    ['data.folds=3', '+study=seeds', '-m', 'data.fold=0,1,2']
    >>> expand_folds(["data.folds=3", "check=true"])
    ['data.folds=3', 'check=true', 'data.fold=0']
    """
    typed = {arg.lstrip("+").partition("=")[0]: arg.partition("=")[2] for arg in args}
    count = typed.get("data.folds", "")
    if not count.isdecimal() or int(count) < 2 or "data.fold" in typed or {"--cfg", "-c", "--help"} & typed.keys():
        return args
    if typed.get("check", "").lower() == "true":
        return [*args, "data.fold=0"]
    folds = f"data.fold={fold_numbers(int(count))}" if "study" in typed else "+study=folds"
    multirun = [] if {"-m", "--multirun"} & typed.keys() else ["--multirun"]
    return [*args, *([] if typed.get("study") == "folds" else [folds]), *multirun]


def fold_numbers(folds: int | None) -> str:
    """The values of data.fold, as Hydra reads them.

    >>> fold_numbers(3)
    '0,1,2'
    """
    return ",".join(map(str, range(folds or 0)))
