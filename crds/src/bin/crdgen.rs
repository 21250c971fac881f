//! Writes the CRDs beside this crate and into the charts, the READMEs of the charts, the reference in `docs`, and the
//! health checks for Argo CD:
//! `cargo run -p portlane-crds --bin crdgen`.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reference = folder.join(crds::REFERENCE);
    fs::create_dir_all(&reference)?;
    for crd in crds::crds()? {
        let yaml = serde_yaml::to_string(&crd.document)?;
        fs::write(folder.join(crds::CHART).join(crd.file), crds::chart_template(&yaml))?;
        fs::write(folder.join(crds::OPERATOR_CHART).join(crd.file), crds::operator_chart_template(&yaml))?;
        fs::write(folder.join(crd.file), yaml)?;
    }
    for crd in crds::kinds()? {
        fs::write(reference.join(crds::page(&crd)), crds::reference(&crd)?)?;
    }
    let mut charts = Vec::new();
    for chart in crds::CHARTS {
        let chart = folder.join(chart);
        let read = |file: &str| fs::read_to_string(chart.join(file));
        let files = [read("Chart.yaml")?, read("values.schema.json")?, read("values.yaml")?];
        let [metadata, schema, values] = &files;
        fs::write(chart.join("README.md"), crds::chart_readme(metadata, schema, values)?)?;
        charts.push(files);
    }
    fs::write(reference.join("values.md"), crds::values_page(&charts)?)?;
    let argocd = folder.join(crds::ARGOCD);
    let scripts = argocd.join(crds::ARGOCD_SCRIPTS);
    let config_map = crds::argocd_config_map(|file| fs::read_to_string(scripts.join(file)))?;
    fs::write(argocd.join(crds::ARGOCD_CONFIG_MAP), config_map)?;
    Ok(())
}
