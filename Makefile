# A bare machine needs Python 3.11 or later with pip, and make. Everything else goes into .venv, once.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-real bench check format

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch comes first and by itself, so that the constraint alone decides its build.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,clean,tensorboard,joblib,submitit,optuna,xlsx]'
	touch $@

demo: .venv/installed ## fine-tune mini_gpt, which ships, on the sample data that ship: needs no network, no GPU
	rm -rf outputs/demo
	$(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	    recipes/finetune.py task=sst2 data=sample backbone=mini_gpt optim.lr=1e-3 optim.warmup=0.1 \
	    train.epochs=4 run_dir=outputs/demo

test: .venv/installed ## the tests that need no network, no GPU and no real data
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope

test-real: .venv/installed ## the tests on real rows (ABLATUNE_DATA) and real weights (ABLATUNE_MODELS)
	$(BIN)/python -m pytest -q -m real tests/real

# Hours on a CPU. One that fails, for want of a package, a GPU or a text, stops no other.
MINILM := $(ABLATUNE_MODELS)/sentence-transformers/all-MiniLM-L6-v2
SMOLLM2 := $(ABLATUNE_MODELS)/HuggingFaceTB/SmolLM2-135M-Instruct
bench: .venv/installed ## speed and memory beside peers', on real rows (ABLATUNE_DATA) and real weights (ABLATUNE_MODELS)
	@test -d "$(ABLATUNE_DATA)" -a -d "$(MINILM)" -a -d "$(SMOLLM2)" || { echo "give ABLATUNE_DATA and ABLATUNE_MODELS: tests/README.md"; exit 2; }
	-$(BIN)/python tests/benchmarks/gpu.py
	-$(BIN)/python tests/benchmarks/startup.py --model $(MINILM) --data $(ABLATUNE_DATA)
	-$(BIN)/python tests/benchmarks/finetuning.py --model $(MINILM) --data $(ABLATUNE_DATA)
	-$(BIN)/python tests/benchmarks/candidates.py --model $(SMOLLM2) --data $(ABLATUNE_DATA)
	-$(BIN)/python tests/benchmarks/candidates.py --model $(SMOLLM2) --data $(ABLATUNE_DATA) --network mini_gpt --rows 8 --eval-rows 16
	-$(BIN)/python tests/benchmarks/zero_shot.py --model $(SMOLLM2) --data $(ABLATUNE_DATA)
	-$(BIN)/python tests/benchmarks/pretraining.py --files $(ABLATUNE_TEXT)/train.txt --valid-files $(ABLATUNE_TEXT)/valid.txt
	-$(BIN)/python tests/benchmarks/cells.py
	-$(BIN)/python tests/benchmarks/reports.py
	-$(BIN)/python tests/benchmarks/lm_memory.py
	-$(BIN)/python tests/benchmarks/memory.py

check: .venv/installed ## formatting, lint, types and spelling; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python heads trainers recipes
	$(BIN)/codespell

format: .venv/installed ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
