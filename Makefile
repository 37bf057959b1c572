# Recipes. `make help` lists them; every one that needs the environment creates it.
MODEL  ?= m3dfel
DATA   ?= dfew
FOLD   ?=
RUN    ?=
ROOT   ?=
VIDEO  ?=
VIDEOS ?=
TABLE  ?=
FOLDS  ?=
SEEDS  ?=
ARGS   ?=
QUICK  ?=
PYTHON ?= python3

BIN   := .venv/bin
READY := .venv/installed
DFER  := $(BIN)/dfer-zoo
FIT    = $(DFER) fit --config experiments/trainer.yaml --config experiments/data/$(DATA).yaml --config experiments/model/$(MODEL).yaml

FINISHED = $(or $(RUN),$(patsubst %/cost.json,%,$(wildcard runs/*/*/cost.json)))
need   = @test -n "$($(1))" || { echo "make $@ needs $(1)=$(2)"; exit 2; }
quote  = '$(subst ','\'',$(1))'
given  = $(filter command environment,$(firstword $(origin $(1))))
A_RUN := runs/<model>-<data>/<version>

.DEFAULT_GOAL := help
.PHONY: help install demo test train resume evaluate predict recognize crop crossval ablation compare reproduce report figures stress \
	calibrate export profile benchmark twin check-data pack notebook lint

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  MODEL= $(basename $(notdir $(wildcard experiments/model/*.yaml)))"
	@echo "  DATA=  $(basename $(notdir $(wildcard experiments/data/*.yaml)))"
	@echo "  FOLD=1..5 (dfew)   QUICK=1 (the recipe for 2 CPU cores)   ARGS='--data.batch_size 64' (any option)"

install: $(READY)  ## create the environment in .venv

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (a minute or two; the log is .venv/install.log)"
	@$(BIN)/python -m pip install --upgrade pip > .venv/install.log 2>&1 \
		&& $(BIN)/python -m pip install --editable '.[dev]' >> .venv/install.log 2>&1 \
		|| { tail -n 20 .venv/install.log; exit 1; }
	@touch $@

train: $(READY)  ## train MODEL= on DATA= (FOLD=), then test the chosen checkpoint; interrupted, it continues
	@test -f experiments/model/$(MODEL).yaml || { echo "There is no MODEL=$(MODEL). \`make help\` lists them."; exit 2; }
	@test -f experiments/data/$(DATA).yaml || { echo "There is no DATA=$(DATA). \`make help\` lists them."; exit 2; }
	$(FIT) $(if $(QUICK),--config experiments/quick.yaml $(addprefix --config ,$(wildcard experiments/quick/$(MODEL).yaml))) $(if $(FOLD),--data.fold $(FOLD)) $(ARGS)

resume: $(READY)  ## continue the interrupted training RUN=
	$(call need,RUN,$(A_RUN))
	@test ! -f $(call quote,$(RUN)/cost.json) || { echo $(call quote,$(RUN) is finished; nothing is left to continue.); exit 2; }
	$(DFER) fit --config $(call quote,$(RUN)/config.yaml) $(ARGS)

evaluate: $(READY)  ## test the chosen checkpoint of RUN=runs/<model>-<data>/<version>
	$(call need,RUN,$(A_RUN))
	$(DFER) test --config $(call quote,$(RUN)/config.yaml) --ckpt_path $(call quote,$(RUN)/checkpoints/best_val.ckpt) $(ARGS)

predict: $(READY)  ## classify the clips in ROOT=, cropped to the face, with the checkpoint of RUN=
	$(call need,RUN,$(A_RUN))
	$(call need,ROOT,folder)
	$(DFER) predict --config $(call quote,$(RUN)/config.yaml) --data Clips --data.root $(call quote,$(ROOT)) --ckpt_path $(call quote,$(RUN)/checkpoints/best_val.ckpt) $(ARGS)

recognize: $(READY)  ## find the faces in VIDEO= and say what they show, with the checkpoint of RUN=
	$(call need,RUN,$(A_RUN))
	$(call need,VIDEO,film.mp4)
	$(DFER) recognize $(call quote,$(VIDEO)) --checkpoint $(call quote,$(RUN)/checkpoints/best_val.ckpt) $(ARGS)

crop: $(READY)  ## make aligned face clips in ROOT= of labelled videos VIDEOS= (a csv, a folder or a file)
	$(call need,VIDEOS,videos.csv)
	$(call need,ROOT,folder)
	$(DFER) crop $(call quote,$(VIDEOS)) --out $(call quote,$(ROOT)) $(ARGS)

crossval: $(READY)  ## train MODEL= on DATA= for all FOLDS=1-5 and SEEDS=0-2; what is done is not repeated
	$(DFER) crossval --model $(MODEL) --data $(DATA) $(if $(FOLDS),--folds $(FOLDS)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(QUICK),--quick) $(ARGS)

ablation: $(READY)  ## train the rows of a paper's ablation TABLE=
	$(call need,TABLE,one of: $(basename $(notdir $(wildcard experiments/ablations/*.yaml))))
	$(DFER) ablation --table $(TABLE) $(if $(FOLDS),--folds $(FOLDS)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(QUICK),--quick) $(ARGS)

compare: $(READY)  ## put all finished runs into one table: intervals, paired tests, figures
	$(DFER) compare $(FINISHED) $(ARGS)

report: $(READY)  ## put all finished runs into one page, report.html
	$(DFER) report $(FINISHED) $(ARGS)

reproduce: $(READY)  ## repeat the study of README, generated data and all (hours on 2 cores); DATA=dfew on the real set (days on a GPU)
	$(DFER) study $(if $(call given,DATA),--data $(DATA) $(if $(ROOT),--root $(call quote,$(ROOT)))) $(ARGS)

figures: $(READY)  ## draw every figure of RUN=
	$(call need,RUN,$(A_RUN))
	$(DFER) figures $(RUN) $(ARGS)

stress: $(READY)  ## test RUN= under darkness, blur, noise, lost frames and other corruptions
	$(call need,RUN,$(A_RUN))
	$(DFER) stress $(RUN) $(ARGS)

calibrate: $(READY)  ## fit a temperature to the probabilities of RUN=
	$(call need,RUN,$(A_RUN))
	$(DFER) calibrate $(RUN) $(ARGS)

export: $(READY)  ## write the model of RUN= to one ONNX file that runs without this package
	$(call need,RUN,$(A_RUN))
	$(DFER) export $(call quote,$(RUN)/checkpoints/best_val.ckpt) $(ARGS)

profile: $(READY)  ## measure what the recipes cost on this machine; all of them, or MODEL=
	$(DFER) profile $(if $(call given,MODEL),--model $(MODEL)) $(if $(QUICK),--quick) $(ARGS)

benchmark: $(READY)  ## time the data path, a training step and inference against plain PyTorch, in turns
	$(foreach part,data_path training_step inference,$(BIN)/python -m tests.benchmarks.$(part) &&) true

twin: $(READY)  ## generate data for DATA=dfew|ferv39k where `make train` looks for it
	$(DFER) synthesize --layout $(DATA) --root data/$(DATA) $(ARGS)

check-data: $(READY)  ## say what is wrong with the data set DATA= on disk
	$(DFER) check $(DATA) $(ARGS)

# The demonstration: generated faces, the papers' models, one table. QUICK=1 trains two of them for fewer epochs.
DEMO        := demo$(if $(QUICK),/quick)
DEMO_DATA   := --clips 700 --size 64 --frames "[16,24]"
DEMO_MODELS := $(if $(QUICK),r3d_18 m3dfel,r3d_18 m3dfel m3dfel_ial micacl hdf)
DEMO_ARGS   := --data.root demo/data --runs $(DEMO)/runs $(if $(QUICK),--trainer.max_epochs 13)
DEMO_RUN     = $(DEMO)/runs/$(1)-dfew/fold1-seed0

pack: $(READY)  ## put the frames of DATA= into one file that loads several times faster, at ROOT=
	$(call need,ROOT,folder)
	$(DFER) pack $(DATA) --root data/$(DATA) --out $(call quote,$(ROOT)) $(ARGS)

demo: $(READY)  ## generate data, train, test and compare the models; minutes on 2 cores
	$(DFER) synthesize --layout dfew --root demo/data $(DEMO_DATA)
	$(foreach model,$(DEMO_MODELS),{ test -f $(call DEMO_RUN,$(model))/cost.json || \
		$(MAKE) --no-print-directory train QUICK=1 MODEL=$(model) DATA=dfew FOLD=1 ARGS='$(DEMO_ARGS)'; } &&) true
	$(DFER) compare $(foreach model,$(DEMO_MODELS),$(call DEMO_RUN,$(model))) --out $(DEMO)/results
	$(foreach model,$(DEMO_MODELS),$(DFER) gallery $(call DEMO_RUN,$(model)) --out $(DEMO)/results/clips-$(model).png &&) true
	$(DFER) report $(foreach model,$(DEMO_MODELS),$(call DEMO_RUN,$(model))) --out $(DEMO)/results/report.html
	@echo "All of it on one page: $(CURDIR)/$(DEMO)/results/report.html. The tables and pictures lie beside it."

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

lint: $(READY)  ## format and lint
	$(BIN)/ruff format
	$(BIN)/ruff check

notebook: $(READY)  ## open the comparison notebook
	@test -x $(BIN)/jupyter-lab || $(BIN)/python -m pip install --editable '.[notebooks]' >> .venv/install.log 2>&1
	$(BIN)/jupyter lab notebooks/compare.ipynb
